"""anomalib, both ways: an encoder of ours in its PaDiM, our PaDiM in one of its modules, both in its engine.

anomalib takes ten seconds to import: not while the suite is collected, so here it is imported in functions.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.utils import save_image

from detectors import PaDiM

SIDE = 64


@pytest.fixture
def _quiet() -> Iterator[None]:
    """anomalib and Lightning log what they do."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def our_module(detector: PaDiM) -> Any:
    """The recipe of docs/tutorials/anomalib.md: PaDiM of `detectors` behind anomalib's interface."""
    from anomalib import LearningType
    from anomalib.models.components import AnomalibModule, MemoryBankMixin

    class OurPadim(MemoryBankMixin, AnomalibModule):
        def __init__(self, **components: Any) -> None:
            super().__init__(**components)
            self.model = detector  # its predictions have the names that anomalib gives them

        def training_step(self, batch: Any, *args: Any) -> Tensor:
            self.model.partial_fit(batch.image)
            return torch.zeros((), device=self.device, requires_grad=True)  # Lightning wants a loss

        def fit(self) -> None:
            self.model.finalize()

        def validation_step(self, batch: Any, *args: Any) -> Any:
            return batch.update(**self.model(batch.image)._asdict())

        @staticmethod
        def configure_optimizers() -> None:
            return None

        @property
        def trainer_arguments(self) -> dict[str, Any]:
            return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

        @property
        def learning_type(self) -> LearningType:
            return LearningType.ONE_CLASS

    return OurPadim(**components())


def their_module(encoder: nn.Module, channels: Tensor) -> Any:
    """anomalib's PaDiM on an encoder of ours; `channels` (num_features,) are those that it keeps."""
    from anomalib.models import Padim

    layers = ["layer1", "layer2", "layer3"]
    module = Padim(backbone=encoder, layers=layers, pre_trained=False, n_features=len(channels), **components())
    module.model.idx = channels.clone()
    return module


def components() -> dict[str, Any]:
    """Raw scores, so that they can be compared: no resizing to 256, no normalisation to [0, 1]."""
    from anomalib.metrics import AUROC, Evaluator

    metric = AUROC(fields=["pred_score", "gt_label"], prefix="image_")
    others = dict.fromkeys(("pre_processor", "post_processor", "visualizer"), False)
    return {"evaluator": Evaluator(test_metrics=[metric]), **others}


def image_auroc(model: Any, root: Path) -> float:
    """Fit and test in anomalib's engine."""
    from anomalib.data import Folder
    from anomalib.engine import Engine

    data = Folder(
        "noise",
        root=root,
        normal_dir="train",
        normal_test_dir="normal",
        abnormal_dir="abnormal",
        val_split_mode="same_as_test",
        train_batch_size=8,
        eval_batch_size=8,
        num_workers=0,
    )
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(default_root_dir=root / "runs", accelerator="cpu", **options)
    engine.fit(model, datamodule=data)
    (figures,) = engine.test(model, datamodule=data, verbose=False)
    return figures["image_AUROC"]


def draw(count: int, seed: int, spot: float) -> Tensor:
    """Noise on a slope (count, 3, SIDE, SIDE); abnormal images hold a square brighter by `spot`."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(0.2, 0.6, SIDE)
    images = slope + 0.15 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    images[:, :, 20:32, 24:36] += spot
    return images.clamp(0, 1)


def write_folder(root: Path) -> None:
    parts = {"train": draw(16, 0, 0.0), "normal": draw(8, 1, 0.0), "abnormal": draw(8, 2, 0.12)}
    for name, images in parts.items():
        (root / name).mkdir()
        for number, image in enumerate(images):
            save_image(image, root / name / f"{number:02d}.png")


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about hyper-parameters, workers and steps without a loss
@pytest.mark.usefixtures("_quiet")
def test_both_ways_give_the_same_auroc(tmp_path: Path) -> None:
    write_folder(tmp_path)
    torch.manual_seed(0)
    encoder = resnet18().eval()
    detector = PaDiM(encoder, num_features=50, eps=0.01 + 1e-5)  # anomalib adds both to a covariance's diagonal
    ours = our_module(detector)
    our_auroc = image_auroc(ours, tmp_path)
    theirs = their_module(encoder, detector.channels)
    their_auroc = image_auroc(theirs, tmp_path)

    assert 0.6 < our_auroc < 1  # neither chance nor a game that any score wins
    assert our_auroc == pytest.approx(their_auroc, abs=1e-6)
    images = draw(4, 3, 0.12)  # and, pixel by pixel, the same map
    our_maps = ours(images).anomaly_map
    their_maps = theirs.eval()(images).anomaly_map
    torch.testing.assert_close(our_maps, their_maps, rtol=1e-5, atol=0)
