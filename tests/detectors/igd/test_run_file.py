import copy
import pickle
from pathlib import Path

import pytest
import torch
from igd_cases import small_detector, smooth_images

from detectors import IGD


class StopError(Exception):
    pass


@pytest.mark.parametrize("own_generator", [False, True])
def test_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path, own_generator):
    images = smooth_images(8)

    def run(checkpoint, resume=False, stop_at=None) -> IGD:
        detector = small_detector(freeze_backbone=False)
        if resume:
            torch.rand(7)  # the random state at the start of the second process is another one
        loader = torch.utils.data.DataLoader(images, batch_size=4, shuffle=True, generator=torch.Generator())
        generator = torch.Generator().manual_seed(3) if own_generator else None

        def on_step(epoch: int, _: dict) -> None:
            if epoch == stop_at:
                raise StopError

        options = {"checkpoint": checkpoint, "refresh_every": 2, "generator": generator, "on_step": on_step}
        return detector.fit(loader, 4, progress=False, resume=resume, **options)

    whole = run(None)
    with pytest.raises(StopError):
        run(tmp_path / "igd.pt", stop_at=3)
    resumed = run(tmp_path / "igd.pt", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoint_of_another_run_is_refused(tmp_path):
    images, file = [smooth_images(4)], tmp_path / "igd.pt"
    small_detector().fit(images, 1, progress=False, checkpoint=file)
    with pytest.raises(ValueError, match="resume with epochs=1"):
        small_detector().fit(images, 2, progress=False, checkpoint=file, resume=True)
    with pytest.raises(ValueError, match="pass checkpoint=FILE"):
        small_detector().fit(images, 2, progress=False, resume=True)


def test_damaged_files_are_refused(tmp_path):
    images, file = [smooth_images(4)], tmp_path / "igd.pt"
    detector = small_detector().fit(images, 1, progress=False, checkpoint=file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint", pickle.dumps({"detector": Path("x")})):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"igd\.pt"):
            small_detector().fit(images, 1, progress=False, checkpoint=file, resume=True)
        with pytest.raises(ValueError, match=r"igd\.pt"):
            small_detector().load(file)
    torch.save(detector.state_dict(), file)
    with pytest.raises(ValueError, match=r"lacks .*optimisers"):
        small_detector().fit(images, 1, progress=False, checkpoint=file, resume=True)
    with pytest.raises(ValueError, match="made alike"):
        small_detector(scales="local").load(file)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("written", "resumed", "message"),
    [
        ({}, {"batch": 4}, "steps_per_epoch=1, got one with steps_per_epoch=2: resume with steps_per_epoch=2"),
        ({"scales": "local"}, {}, "scales='global', got one with scales='local'"),
        ({}, {"freeze_backbone": False}, "freeze_backbone=False, got one with freeze_backbone=True"),
        ({}, {"generator": generator()}, "generators='torch and generator', got one with generators='torch'"),
        ({"generator": generator()}, {}, "generators='torch', got one with generators='torch and generator'"),
        ({"width": 1 / 16}, {}, "size mismatch"),
    ],
)
def test_checkpoint_of_a_run_with_other_settings_is_refused(tmp_path, written, resumed, message):
    file = tmp_path / "igd.pt"

    def fit(scales="global", batch=2, generator=None, resume=False, on_step=None, **options) -> None:
        detector = small_detector(scales=scales, **options)
        before = copy.deepcopy(detector.state_dict())
        loader, settings = smooth_images(4).split(batch), {"generator": generator, "checkpoint": file}
        try:
            detector.fit(loader, 2, progress=False, resume=resume, on_step=on_step, **settings)
        finally:
            if resume:
                assert_same_state(detector, before)

    fit(**written)
    with pytest.raises(ValueError, match=r"expected a checkpoint of this run.*igd\.pt") as refusal:
        fit(**resumed, resume=True, on_step=pytest.fail)
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 600


def assert_same_state(detector, before) -> None:
    torch.testing.assert_close(detector.state_dict(), before, rtol=0, atol=0, equal_nan=True)
    assert not detector.is_fitted()


HOSTILE = {
    "settings": [5, {}, {"epochs": torch.ones(3)}],
    "detector": [torch.ones(2), {}, 5],
    "optimisers": [{}, 5, {"global": 5, "local": 5}, {"global": [{}, {}], "local": [{}]}],
    "random": [5, {}, {"torch": 5}, {"torch": torch.zeros(3)}, {"torch": torch.zeros(5056, dtype=torch.uint8)}],
    "epoch": ["x", -1, 2, True, None],
    "steps": ["x", -1, 1.5],
}


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in HOSTILE.items() for value in values])
def test_hostile_checkpoints_are_refused_and_change_nothing(tmp_path, checkpoint, part, value):
    assert_refused(tmp_path / "igd.pt", checkpoint | {part: value})


@pytest.mark.parametrize("moments", [5, {}, {"step": "x", "exp_avg": "y", "exp_avg_sq": "z"}])
def test_hostile_moments_are_refused(tmp_path, checkpoint, moments):
    state = copy.deepcopy(checkpoint)
    state["optimisers"]["local"][1][0] = moments
    assert_refused(tmp_path / "igd.pt", state)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("checkpoint") / "igd.pt"
    small_detector().fit([smooth_images(2)], 1, progress=False, checkpoint=file)
    return torch.load(file, weights_only=True)


def assert_refused(file: Path, state: dict) -> None:
    torch.save(state, file)
    detector = small_detector(seed=1)
    before, random = copy.deepcopy(detector.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"expected a checkpoint of this run.*igd\.pt"):
        detector.fit([smooth_images(2)], 1, progress=False, checkpoint=file, resume=True)
    assert_same_state(detector, before)
    assert torch.equal(torch.get_rng_state(), random)
