"""Which layout in memory a detector's backbone works in, and that nothing else depends on it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detectors import PaDiM
from detectors.padim.embedding import select_channels


class Strided(nn.Module):
    """Maps of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, stride=4, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.convolution(images)]


class Viewing(Strided):
    """Flattens its maps by `view`, which the channels_last layout does not allow."""

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.convolution(images)
        return [maps.view(len(maps), -1).view(maps.shape)]


def draw(count: int, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("backbone", "fits"), [(Strided(), True), (Viewing(), False)])
def test_padim_computes_in_channels_last_where_the_backbone_can(backbone: Strided, fits: bool, tmp_path: Path) -> None:
    images = draw(6)
    detector = PaDiM(backbone, None, num_features=None).fit([images])
    detector.save(tmp_path / "padim.pt")
    loaded = PaDiM(backbone, None, num_features=None).load(tmp_path / "padim.pt")
    want = detector(images)
    for other in (detector, loaded, detector.for_inference(), copy.deepcopy(detector)):
        weight = other.extract.backbone.get_parameter("convolution.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == fits
        torch.testing.assert_close(other(images).anomaly_map, want.anomaly_map)
    assert backbone.convolution.weight.is_contiguous()  # the user's own


def test_a_copy_of_any_layout_selects_the_same_channels() -> None:
    maps = draw(2, 8)
    channels = torch.tensor([0, 2])
    others = [maps.contiguous(memory_format=torch.channels_last), maps.mT.contiguous().mT]
    for layout in (maps, *others):
        assert torch.equal(select_channels(layout, channels), maps[:, channels])
