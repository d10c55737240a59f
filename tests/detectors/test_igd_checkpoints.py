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


def test_checkpoint_of_a_run_with_other_batches_is_refused(tmp_path):
    images, file = smooth_images(4), tmp_path / "igd.pt"
    small_detector(scales="global").fit(images.split(2), 1, progress=False, checkpoint=file)
    with pytest.raises(ValueError, match="with steps_per_epoch=1, got one with steps_per_epoch=2"):
        small_detector(scales="global").fit([images], 1, progress=False, checkpoint=file, resume=True)


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
