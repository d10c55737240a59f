"""Maps brought to grids that nest."""

import torch
import torch.nn.functional as F

from detectors.padim.grids import fit_to_grid, padded_sizes


def test_grids_that_cross_cannot_nest() -> None:
    assert padded_sizes([(2, 3), (3, 7)]) == [(2, 3), (4, 9)]
    assert padded_sizes([(2, 3)]) == [(2, 3)]
    assert padded_sizes([(4, 2), (3, 8)]) is None
    assert padded_sizes([(2, 8), (4, 4)]) is None


def test_a_map_on_its_grid() -> None:
    values = torch.rand(1, 2, 2, 3)
    assert fit_to_grid(values, (2, 3), upsample=True) is values
    assert torch.equal(fit_to_grid(values, (4, 6), upsample=True), F.interpolate(values, scale_factor=2))
    padded = fit_to_grid(values, (3, 5), upsample=False)
    assert torch.equal(padded[:, :, :2, :3], values)
    assert torch.equal(padded[:, :, 2, 3:], values[:, :, 1:, 2].expand(-1, -1, 2))
    for upsample in (False, True):
        assert fit_to_grid(values[:, :0], (4, 6), upsample).shape == (1, 0, 4, 6)
