"""PaDiM in any order of calls: a right answer or a clear error, never a wrong answer."""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from detectors import PaDiM

SIZES = (16, 24)
TEST = {size: torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(99)) for size in SIZES}


def make() -> PaDiM:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 4, 4), nn.ReLU(), nn.Conv2d(3, 3, 2, 2))
    return PaDiM(net, ("1", "2"), num_features=4, blur_sigma=1.0, generator=torch.Generator().manual_seed(0))


def batch(seed: int, count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


BATCHES = st.builds(batch, st.integers(0, 99), st.integers(1, 4), st.sampled_from(SIZES))
# How far scores and maps may lie from the expected ones: in half precision, features depend on the batch they are in.
EXACT = {"rtol": 1e-3, "atol": 1e-4}
ROUGH = {"rtol": 2e-2, "atol": 2e-2}


@dataclass(frozen=True)
class Precision:
    """What the backbone computes in, and whether its weights have ever been rounded to half."""

    dtype: torch.dtype = torch.float32
    rounded: bool = False

    def to(self, dtype: torch.dtype) -> "Precision":
        return Precision(dtype, self.rounded or dtype == torch.float16)

    def set(self, detector: PaDiM) -> PaDiM:
        """Give the original backbone this precision."""
        detector.float().extract.load_state_dict(make().extract.state_dict())
        if self.rounded:
            detector.half()
        return detector.to(self.dtype)


@dataclass(frozen=True)
class Seen:
    """Images that were taken in, and the backbone's precision at the time."""

    images: Tensor
    precision: Precision


class PaDiMStates(RuleBasedStateMachine):
    """A detector, and beside it what it should know: the images taken in, whether it is finalised, its thresholds."""

    @initialize()
    def begin(self) -> None:
        self.detector = make()
        self.seen: list[Seen] = []
        self.precision = Precision()
        self.final = False
        self.thresholds: tuple[float, float] | None = None
        self.folder = tempfile.TemporaryDirectory()
        self.file: tuple[Any, ...] | None = None  # what the saved file should bring back

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @property
    def path(self) -> Path:
        return Path(self.folder.name, "padim.pt")

    def fits(self, images: Tensor) -> bool:
        return not self.seen or images.shape[1:] == self.seen[0].images.shape[1:]

    def new(self, images: Tensor) -> Seen:
        return Seen(images, self.precision)

    def expected(self) -> PaDiM:
        """A detector that was fitted on all that was seen, in one go for each precision."""
        groups: dict[Precision, list[Tensor]] = {}
        for one in self.seen:
            groups.setdefault(one.precision, []).append(one.images)
        parts = [precision.set(make()).partial_fit(torch.cat(images)) for precision, images in groups.items()]
        whole, *others = parts
        for other in others:
            whole.merge(other)
        return self.precision.set(whole.finalize())

    @property
    def tolerance(self) -> dict[str, float]:
        halves = [self.precision, *(one.precision for one in self.seen)]
        return ROUGH if any(one.dtype == torch.float16 for one in halves) else EXACT

    @rule(images=BATCHES)
    def fit(self, images: Tensor) -> None:
        self.seen, self.thresholds, self.final = [self.new(images)], None, len(images) > 1
        if self.final:
            assert self.detector.fit([images]) is self.detector
            return
        with pytest.raises(ValueError, match="at least 2 samples"):
            self.detector.fit([images])

    @rule(images=BATCHES)
    def fit_on_a_loader_that_fails(self, images: Tensor) -> None:
        def loader() -> Any:
            yield images
            raise OSError("disk gone")

        with pytest.raises(OSError, match="disk gone"):
            self.detector.fit(loader())
        self.seen, self.thresholds, self.final = [self.new(images)], None, False

    @rule(images=BATCHES)
    def partial_fit(self, images: Tensor) -> None:
        if not self.fits(images):
            with pytest.raises(ValueError, match="as in training"):
                self.detector.partial_fit(images)
            return
        self.detector.partial_fit(images)
        self.seen, self.thresholds, self.final = [*self.seen, self.new(images)], None, False

    @rule(images=BATCHES)
    def merge(self, images: Tensor) -> None:
        other = make().partial_fit(images)
        if not self.seen or not self.fits(images):
            with pytest.raises(ValueError, match="expected"):
                self.detector.merge(other)
            return
        self.detector.merge(other)
        self.seen, self.thresholds, self.final = [*self.seen, Seen(images, Precision())], None, False

    @rule()
    def finalize(self) -> None:
        if sum(len(one.images) for one in self.seen) < 2:
            with pytest.raises(ValueError, match="expected"):
                self.detector.finalize()
            return
        self.detector.finalize()
        self.final = True

    @rule(images=BATCHES, quantile=st.sampled_from([0.5, 0.99, 1.0]))
    def set_threshold(self, images: Tensor, quantile: float) -> None:
        if not self.final:
            with pytest.raises(NotFittedError):
                self.detector.set_threshold([images], quantile)
        elif not self.fits(images):
            with pytest.raises(ValueError, match="as in training"):
                self.detector.set_threshold([images], quantile)
        else:
            maps = self.expected()(images)
            self.detector.set_threshold([images], quantile)
            limits = (maps.pred_score.quantile(quantile), maps.anomaly_map.quantile(quantile))
            self.thresholds = (float(limits[0]), float(limits[1]))

    @rule()
    def save(self) -> None:
        self.detector.save(self.path)
        self.file = (list(self.seen), self.final, self.thresholds, self.precision)

    @rule(anew=st.booleans())
    def load(self, anew: bool) -> None:
        if self.file is None:
            with pytest.raises(FileNotFoundError):
                self.detector.load(self.path)
            return
        self.detector = (make() if anew else self.detector).load(self.path)
        seen, self.final, self.thresholds, saved = self.file
        self.seen = list(seen)
        # The file's weights in the detector's own precision.
        own = torch.float32 if anew else self.precision.dtype
        self.precision = replace(saved, dtype=torch.float32).to(own)

    @rule()
    def half(self) -> None:
        assert self.detector.half() is self.detector
        self.precision = self.precision.to(torch.float16)

    @rule(dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]))
    def to(self, dtype: torch.dtype) -> None:
        assert self.detector.to("cpu", dtype) is self.detector
        self.precision = self.precision.to(dtype)

    @rule(images=BATCHES)
    def move_a_copy_to_a_device_without_values(self, images: Tensor) -> None:
        """Nothing that a detector on meta is asked for is answered with numbers, nor goes back to the CPU or a file."""
        lost = copy.deepcopy(self.detector).to("meta")
        with pytest.raises((ValueError, NotFittedError)):
            lost(images)
        with pytest.raises((ValueError, NotFittedError)):
            lost.set_threshold([images.to("meta")])
        with pytest.raises(ValueError, match="meta"):
            lost.save(self.path.with_name("lost.pt"))
        with pytest.raises(NotImplementedError, match="no data"):
            lost.to("cpu")

    @rule(cut=st.integers(0, 10**6))
    def load_a_broken_file(self, cut: int) -> None:
        if self.file is None:
            return
        whole = self.path.read_bytes()
        broken = self.path.with_name("broken.pt")
        broken.write_bytes(whole[: cut % len(whole)])
        with pytest.raises(ValueError, match="expected"):
            self.detector.load(broken)

    @rule(training=st.booleans())
    def change_mode(self, training: bool) -> None:
        self.detector.train(training)

    @rule()
    def predict_another_size(self) -> None:
        if self.final:
            other = SIZES[1] if self.seen[0].images.shape[2] == SIZES[0] else SIZES[0]
            with pytest.raises(ValueError, match="as in training"):
                self.detector(TEST[other])

    @invariant()
    def the_answer_is_right_or_refused(self) -> None:
        if not hasattr(self, "detector"):
            return
        if not self.final:
            with pytest.raises(NotFittedError):
                self.detector(TEST[SIZES[0]])
            return
        images = TEST[self.seen[0].images.shape[2]]
        got = self.detector(images)
        want = self.expected()(images)
        torch.testing.assert_close(got.pred_score, want.pred_score, **self.tolerance)
        torch.testing.assert_close(got.anomaly_map, want.anomaly_map, **self.tolerance)
        if self.thresholds is None:
            assert got.pred_label is None
            assert got.pred_mask is None
            return
        limits = (self.detector.image_threshold, self.detector.pixel_threshold)
        assert [float(limit) for limit in limits] == pytest.approx(
            self.thresholds, rel=self.tolerance["rtol"], abs=self.tolerance["atol"]
        )
        assert torch.equal(got.pred_label, got.pred_score > limits[0])
        assert torch.equal(got.pred_mask, got.anomaly_map > limits[1])


TestPaDiMStates = PaDiMStates.TestCase
