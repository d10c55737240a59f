import copy
import pickle
from pathlib import Path

import pytest
import torch
from igd_cases import fitted, small_detector, smooth_images, tiny_backbone
from torch import nn

from detectors import IGD, load
from detectors.igd.run_file import random_sources


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
    with pytest.raises(ValueError, match="resume with steps_per_epoch=1"):
        small_detector().fit(images * 2, 1, progress=False, checkpoint=file, resume=True)
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
        ({"width": 1 / 16}, {}, "width=0.0625"),
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


def test_a_resumed_run_may_have_more_epochs_but_not_fewer(tmp_path):
    images, file, rates = [smooth_images(4)], tmp_path / "igd.pt", []
    small_detector(scales="global").fit(images, 2, progress=False, checkpoint=file)
    detector = small_detector(scales="global")
    detector.fit(images, 4, progress=False, checkpoint=file, resume=True, on_step=lambda epoch, _: rates.append(epoch))
    assert rates == [2, 3]
    with pytest.raises(ValueError, match=r"run 4 epochs already, so epochs=3 is too few"):
        small_detector(scales="global").fit(images, 3, progress=False, checkpoint=file, resume=True)


def test_ctrl_c_leaves_a_detector_and_a_file_that_can_be_used(tmp_path):
    images, file, detector = smooth_images(4), tmp_path / "igd.pt", small_detector(scales="global")

    def interrupt(epoch: int, _: dict) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detector.fit([images], 3, progress=False, checkpoint=file, on_step=interrupt)
    assert not detector.training
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert torch.isfinite(detector(images).pred_score).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["igd.pt"]
    small_detector(scales="global").fit([images], 3, progress=False, checkpoint=file, resume=True)


def test_a_full_folder_is_refused_before_the_first_step(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))  # a quota: no file above 64 KiB
    try:
        with pytest.raises(ValueError, match=r"can be written \(.* MB\)"):
            small_detector().fit(
                [smooth_images(2)], 1, progress=False, checkpoint=tmp_path / "igd.pt", on_step=pytest.fail
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


OPTIONS = {"code_dim": 8, "width": 1 / 16, "score": "paper", "xi": (0.2, 0.8), "nu": 0.3, "rho": 0.3, "data_range": 2.0}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_state_saved_with_another_option_is_refused_by_name(tmp_path, option):
    detector = small_detector(**{option: OPTIONS[option]})
    torch.save(detector.state_dict(), tmp_path / "igd.pt")
    with pytest.raises(ValueError, match=rf"{option}="):
        small_detector().load(tmp_path / "igd.pt")
    small_detector(**{option: OPTIONS[option]}).load(tmp_path / "igd.pt")


def test_a_detector_is_rebuilt_from_its_own_file(tmp_path):
    torch.manual_seed(0)
    named = IGD("resnet18", 32, "both", weights=None, xi=(0.2, 0.7), width=1 / 32, code_dim=16)
    named.fit([smooth_images(2)], 1, progress=False).save(tmp_path / "named.pt")
    images = smooth_images(2, seed=1)
    assert torch.equal(load(tmp_path / "named.pt")(images).pred_score, named(images).pred_score)
    module = fitted(scales="global")
    module.save(tmp_path / "module.pt")
    with pytest.raises(ValueError, match="backbone=module"):
        load(tmp_path / "module.pt")
    assert torch.equal(load(tmp_path / "module.pt", tiny_backbone())(images).pred_score, module(images).pred_score)
    projected = fitted(scales="global", projection=nn.Linear(24, 16))
    projected.save(tmp_path / "projected.pt")
    with pytest.raises(ValueError, match="projection=module"):
        load(tmp_path / "projected.pt", tiny_backbone())
    again = small_detector(scales="global", projection=nn.Linear(24, 16)).load(tmp_path / "projected.pt")
    assert torch.equal(again(images).pred_score, projected(images).pred_score)


def test_a_run_on_a_gpu_keeps_its_randomness_too(monkeypatch):
    gpus = [torch.Generator(), torch.Generator()]
    monkeypatch.setattr("torch.cuda.default_generators", gpus)
    loader = torch.utils.data.DataLoader(smooth_images(2), generator=torch.Generator())
    sources = random_sources(loader, None, torch.device("cuda:1"))
    assert sources == {"torch": torch.default_generator, "cuda": gpus[1], "loader": loader.generator}
    assert random_sources([], None, torch.device("cuda"))["cuda"] is gpus[0]
    assert random_sources([], gpus[0], torch.device("cpu")) == {"torch": torch.default_generator, "generator": gpus[0]}
