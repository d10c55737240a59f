import pytest
import torch
from igd_cases import small_detector

from detectors.igd.scales import average_patches, cut_patches, patches_per_image


def test_local_steps_hold_at_most_450_patches():
    local = small_detector(256, "local").scales["local"]
    assert [len(part) for part in local.training_batches(torch.rand(5, 3, 256, 256))] == [450, 450, 225]


@pytest.mark.parametrize(("size", "count"), [(32, 1), (64, 9), (128, 49), (256, 225)])
def test_patches_are_windows_and_average_back(size, count):
    images = torch.rand(2, 1, size, size)
    patches = cut_patches(images)
    assert patches_per_image(size) == count
    assert patches.shape == (2 * count, 1, 32, 32)
    if size > 32:
        torch.testing.assert_close(patches[count + 1], images[1, :, :32, 16:48])
    torch.testing.assert_close(average_patches(patches, size), images)


def test_overlaps_are_averaged_not_summed():
    patches = torch.arange(9.0)[:, None, None, None].expand(9, 1, 32, 32)
    averaged = average_patches(patches, 64)[0, 0]
    assert averaged[0, 0] == 0
    assert averaged[20, 20] == (0 + 1 + 3 + 4) / 4
    assert averaged[63, 63] == 8
