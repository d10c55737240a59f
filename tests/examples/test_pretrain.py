from dataclasses import replace
from pathlib import Path

import pytest
import torch
from encoders import load_backbone
from pretrain import Config, Pretraining, pretrain

CONFIG = Config(size=16, epochs=2, batch_size=2)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_resumed_run_equals_an_uninterrupted_one(images: torch.Tensor, tmp_path: Path) -> None:
    whole = pretrain(images, CONFIG)
    stopped = Pretraining(images, CONFIG)
    stopped.set_centres()
    stopped.train_epoch(progress=False)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = pretrain(images, CONFIG, tmp_path, resume=True)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    saved = load_backbone(tmp_path / "encoder.pt")
    for a, b in zip(saved.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("strong", ["medmix", "permutation", "rotation", "cutmix", "noise"])
def test_every_strong_augmentation_trains(images: torch.Tensor, strong: str) -> None:
    run = Pretraining(images, replace(CONFIG, strong=strong))
    run.set_centres()
    row = run.train_epoch(progress=False)
    assert all(torch.isfinite(torch.tensor(value)) for value in row.values())


def test_ccd_neither_centres_nor_calibrates(images: torch.Tensor) -> None:
    run = Pretraining(images, replace(CONFIG, method="ccd", strong="permutation"))
    run.set_centres()
    criterion = run.step.criterion
    assert not criterion.centres.any()
    assert criterion.alpha == 1
    assert criterion.weights[0] == 0


def test_resuming_with_other_options_is_refused(images: torch.Tensor) -> None:
    state = Pretraining(images, CONFIG).state_dict()
    with pytest.raises(ValueError, match="epochs"):
        Pretraining(images, replace(CONFIG, epochs=3)).load_state_dict(state)


def test_a_single_image_left_over_is_no_trouble(images: torch.Tensor) -> None:
    Pretraining(images[:3], CONFIG).finished_backbone()
