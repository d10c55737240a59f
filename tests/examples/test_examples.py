"""Each example script is complete by itself: copied alone into an empty folder, it runs there on a tiny data set."""

import ast
import csv
import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from forked_scripts import ScriptRunner, wait_for_a_line
from PIL import Image

import detectors

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
LINES = {
    "quickstart.py": 90,
    "pretrain.py": 90,
    "train_padim.py": 40,
    "train_igd.py": 40,
    "predict.py": 90,
    "gallery.py": 75,
    "kornia_pipeline.py": 30,
    "lightning_module.py": 60,
}


def environment() -> dict[str, str]:
    """This checkout's packages, one thread, no window and no plotting cache to build."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


@functools.cache
def runner() -> ScriptRunner:
    """What all scripts of these tests are started by."""
    return ScriptRunner(environment())


@pytest.fixture(scope="module", autouse=True)
def stop_runner() -> Iterator[None]:
    yield
    if runner.cache_info().currsize:
        runner().stop()


def start(script: str, folder: Path, *arguments: object) -> int:
    """Copy a script into a folder and start it there; returns its process id."""
    folder.mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / script, folder)
    return runner().start(script, folder, *arguments)


def run(script: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Copy a script into a folder and run it there."""
    start(script, folder, *arguments)
    return runner().finish(folder)


def succeed(script: str, folder: Path, *arguments: object) -> str:
    result = run(script, folder, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12-bit X-rays with a test set, and new images in a sub-folder among other files."""
    root = tmp_path_factory.mktemp("examples")
    random = np.random.default_rng(0)
    folders = {"data/train/normal": 12, "data/test/normal": 4, "data/test/abnormal": 4, "new/sub": 5}
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(4096, size=(40, 32), dtype=np.uint16)).save(root / folder / f"{i}.png")
    (root / "new/readme.txt").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def encoder(work: Path) -> Path:
    printed = succeed(
        "pretrain.py", work / "pretrain", "--data", work / "data", "--size", 32, "--batch-size", 4, "--epochs", 1
    )
    assert "12 images" in printed
    assert "values 0 to 40" in printed
    assert "accuracy" in printed
    return work / "pretrain/encoder.pt"


@pytest.fixture(scope="module")
def padim(work: Path, encoder: Path) -> Path:
    options = ("--data", work / "data", "--encoder", encoder, "--size", 32)
    assert "image_auroc" in succeed("train_padim.py", work / "padim", *options)
    return work / "padim/padim.pt"


@pytest.mark.parametrize("colour", [False, True])
def test_given_weights_keep_their_early_layers_on_colour_images_only(tmp_path: Path, colour: bool) -> None:
    network = timm.create_model("test_efficientnet", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "start.pt")
    random = np.random.default_rng(0)
    shape = (40, 32, 3) if colour else (40, 32)
    (tmp_path / "data").mkdir()
    for i in range(8):
        Image.fromarray(random.integers(256, size=shape, dtype=np.uint8)).save(tmp_path / f"data/{i}.png")
    options = ("--data", "data", "--backbone", "timm:test_efficientnet", "--weights", "start.pt", "--size", 32)
    succeed("pretrain.py", tmp_path, *options, "--batch-size", 4, "--epochs", 1)

    learnt = torch.load(tmp_path / "encoder.pt", weights_only=True)
    kept = [key for key, value in network.named_parameters() if torch.equal(value, learnt[key])]
    early = [
        key for key, _ in network.named_parameters() if key.startswith(("conv_stem", "bn1", "blocks.0", "blocks.1"))
    ]
    assert bool(kept) == colour
    if colour:
        assert set(early) <= set(kept)
        assert "conv_head.weight" not in kept


def test_every_script_has_its_limit() -> None:
    assert sorted(LINES) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short_and_import_nothing_of_the_folder(script: str) -> None:
    text = (EXAMPLES / script).read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= LINES[script]
    local = {path.stem for path in EXAMPLES.rglob("*.py")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not local & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] not in local
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 15
        if isinstance(node, ast.ClassDef):
            assert ast.unparse(node.bases[0]).rsplit(".", 1)[-1] in ("Module", "LightningModule")


def test_encoder_is_a_plain_state_dict_of_torchvision_names(encoder: Path) -> None:
    state = torch.load(encoder, weights_only=True)
    assert state["layer1.0.conv1.weight"].shape == (64, 64, 3, 3)


def test_padim_file_rebuilds_the_detector_with_threshold_and_scale(padim: Path) -> None:
    detector = detectors.load(padim)
    assert detector.metadata == {"image_size": 32, "image_channels": 3, "image_range": [0.0, 4095.0]}
    assert detector.image_threshold is not None


def test_padim_needs_neither_an_encoder_nor_a_network(work: Path) -> None:
    succeed("train_padim.py", work / "alone", "--data", work / "data", "--encoder", "none", "--size", 32)
    assert detectors.load(work / "alone/padim.pt").image_threshold is not None


def test_predict_scores_new_images_and_writes_a_page(work: Path, padim: Path) -> None:
    folder = work / "predict"
    result = run("predict.py", folder, "--model", padim, "--images", work / "new", "--out", "out")
    assert result.returncode == 0, result.stderr
    assert "1 of 6 files in" in result.stderr
    assert "unknown suffix .txt (readme.txt)" in result.stderr
    with (folder / "out/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert sorted(row["file"] for row in rows) == [f"sub/{i}.png" for i in range(5)]
    assert scores == sorted(scores, reverse=True)
    assert {row["above_threshold"] for row in rows} <= {"0", "1"}
    assert len(list((folder / "out/overlays/sub").iterdir())) == 5
    assert "sub/3.png" in (folder / "out/report.html").read_text()


@pytest.mark.slow
def test_quickstart_prints_three_rows_and_draws(tmp_path: Path) -> None:
    printed = succeed("quickstart.py", tmp_path, "--epochs", 0)
    rows = [line.split(" image AUROC")[0].strip() for line in printed.splitlines() if "AUROC" in line]
    assert rows == ["random", "batch-norm calibrated", "MSACL"]
    with Image.open(tmp_path / "quickstart.png") as picture:
        assert picture.size[0] > 1000


def test_gallery_draws(work: Path, tmp_path: Path) -> None:
    succeed("gallery.py", tmp_path, "--data", work / "new", "--size", 48)
    assert (tmp_path / "gallery.png").is_file()


def test_kornia_pipeline_draws(work: Path, tmp_path: Path) -> None:
    assert "lesions cover" in succeed("kornia_pipeline.py", tmp_path, "--images", work / "new")
    assert (tmp_path / "kornia_pipeline.png").is_file()


def test_lightning_trains(work: Path, tmp_path: Path) -> None:
    options = ("--data", work / "data/train", "--size", 32, "--epochs", 1)
    succeed("lightning_module.py", tmp_path, *options)
    assert "conv1.weight" in torch.load(tmp_path / "encoder.pt", weights_only=True)


def test_a_users_error_ends_in_one_line(tmp_path: Path) -> None:
    result = run("train_padim.py", tmp_path, "--data", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("FileNotFoundError expected a folder of images, found none at")
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_in_one_line(tmp_path: Path, work: Path) -> None:
    process = start("pretrain.py", tmp_path, "--data", work / "data", "--epochs", 9999, "--size", 32)
    wait_for_a_line(tmp_path)  # the summary: the script is at work
    time.sleep(0.5)
    os.kill(process, signal.SIGINT)
    result = runner().finish(tmp_path)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].strip() == "KeyboardInterrupt"
    assert "Traceback" not in result.stderr


def test_igd_trains_saves_and_predicts_without_a_test_set(work: Path, encoder: Path) -> None:
    options = ("--encoder", encoder, "--size", 32, "--width", 1 / 32, "--epochs", 1)
    printed = succeed("train_igd.py", work / "igd", "--data", work / "data/train", *options)
    assert "auroc" not in printed
    succeed("predict.py", work / "igd", "--model", "igd.pt", "--images", work / "new", "--out", "out")
    assert (work / "igd/out/report.html").is_file()
