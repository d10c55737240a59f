"""Pre-training: stop, resume, extend; what each row trains; what users do wrong."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks.encoders import Init, is_late, load_backbone, make_backbone
from pretrain import main
from rows import ROWS, Recipe, adapts, recipe_for
from torchvision.transforms.v2.functional import to_pil_image
from training import Pretraining, Setting, pretrain

RECIPE = Recipe(epochs=2, batch_size=2)
SETTING = Setting(init="random")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(images: torch.Tensor, tmp_path: Path) -> Path:
    (tmp_path / "data/train/normal").mkdir(parents=True)
    for i, image in enumerate(images):
        to_pil_image(image).save(tmp_path / f"data/train/normal/{i}.png")
    return tmp_path / "data"


def test_resumed_run_equals_an_uninterrupted_one(images: torch.Tensor, tmp_path: Path) -> None:
    whole = pretrain(images, RECIPE, SETTING)
    stopped = Pretraining(images, RECIPE, SETTING)
    stopped.set_centres()
    stopped.train_epoch(progress=False)
    torch.save(stopped.state_dict(), tmp_path / "checkpoint.pt")
    resumed = pretrain(images, RECIPE, SETTING, tmp_path / "checkpoint.pt", resume=True)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_command_line_trains_resumes_further_and_says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    common = ["--data", str(folder), "--size", "32", "--batch-size", "2", "--init", "random"]
    with pytest.raises(SystemExit, match="without --resume"):
        main([*common, "--out", str(tmp_path / "run"), "--resume"])
    main([*common, "--out", str(tmp_path / "run"), "--epochs", "1"])
    main([*common, "--out", str(tmp_path / "run"), "--epochs", "2", "--resume"])
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2
    backbone = load_backbone(tmp_path / "run/encoder.pt")
    assert torch.equal(backbone.layer1[0].conv_pw.weight, state["step"]["encoder.backbone.layer1.0.conv_pw.weight"])
    with pytest.raises(SystemExit, match="these differ: alpha"):
        main([*common, "--out", str(tmp_path / "run"), "--alpha", "3", "--resume"])
    with pytest.raises(SystemExit, match="expected a row of"):
        main([*common, "--out", str(tmp_path / "run"), "--row", "mssacl"])
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="choose another --out"):
        main([*common, "--out", str(tmp_path / "file")])


def test_a_stop_by_hand_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.pretrain", stop)
    with pytest.raises(SystemExit, match="--resume goes on"):
        main(["--data", str(folder), "--out", str(tmp_path / "run"), "--size", "32"])


def test_a_full_disk_is_refused_before_the_first_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("files.shutil.disk_usage", lambda folder: SimpleNamespace(free=10**6))
    monkeypatch.setattr("pretrain.pretrain", lambda *arguments: pytest.fail("it trains"))
    with pytest.raises(SystemExit, match="expected 300 MB of space"):
        main(["--data", str(folder), "--out", str(tmp_path / "run"), "--size", "32"])


def test_a_disk_that_fills_up_ends_the_run_and_leaves_the_last_checkpoint(images: torch.Tensor, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    file = tmp_path / "checkpoint.pt"
    pretrain(images, replace(RECIPE, epochs=1), SETTING, file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # a quota: no file above 1 MiB
    try:
        with pytest.raises(ValueError, match="expected a file that can be written"):
            pretrain(images, RECIPE, SETTING, file, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_checkpoint_is_not_resumed(images: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    pretrain(images, replace(RECIPE, epochs=1), SETTING, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # in the values of a tensor
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        pretrain(images, RECIPE, SETTING, file, resume=True)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains(images: torch.Tensor, row: str) -> None:
    run = Pretraining(images, recipe_for(row, RECIPE, 4), SETTING)
    run.set_centres()
    statistics = run.train_epoch(progress=False)
    assert all(torch.isfinite(torch.tensor(value)) for value in statistics.values())


STARTS = [("imagenet", True, True), ("imagenet", False, False), ("random", False, True)]


@pytest.mark.parametrize(("init", "grey", "expected"), STARTS)
def test_early_layers_adapt_to_grey_images_and_from_random_weights(
    images: torch.Tensor, init: Init, grey: bool, expected: bool
) -> None:
    if grey:
        images = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert adapts(RECIPE, images, init) == expected


@pytest.mark.parametrize("features", ["adapt", "keep"])
def test_kept_features_are_early_layers_and_batch_norm(images: torch.Tensor, features: str) -> None:
    run = Pretraining(images, replace(RECIPE, features=features), SETTING)
    run.set_centres()
    before = {name: p.detach().clone() for name, p in run.backbone.named_parameters()}
    statistics_before = {name: b.clone() for name, b in run.backbone.named_buffers()}
    run.train_epoch(progress=False)
    for name, parameter in run.backbone.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == (is_late(name) or features == "adapt"), name
    for name, buffer in run.backbone.named_buffers():
        assert torch.equal(buffer, statistics_before[name]) == (features == "keep"), name


def test_ccd_neither_centres_nor_calibrates(images: torch.Tensor) -> None:
    run = Pretraining(images, recipe_for("ccd", RECIPE, 4), SETTING)
    run.set_centres()
    criterion = run.step.criterion
    assert not criterion.centres.any()
    assert criterion.alpha == 1
    assert criterion.weights[0] == 0


def test_bfloat16_trains(images: torch.Tensor) -> None:
    run = Pretraining(images, RECIPE, replace(SETTING, amp=True))
    run.set_centres()
    assert math.isfinite(run.train_epoch(progress=False)["total"])
    assert run.step.embed(images[:2].float() / 255).dtype == torch.float32


def test_a_single_image_left_over_is_no_trouble(images: torch.Tensor) -> None:
    Pretraining(images[:3], RECIPE, SETTING).finished_backbone()


def test_random_starts_follow_the_seed() -> None:
    torch.manual_seed(0)
    first = make_backbone("resnet18")
    torch.manual_seed(0)
    assert torch.equal(first.conv1.weight, make_backbone("resnet18").conv1.weight)
