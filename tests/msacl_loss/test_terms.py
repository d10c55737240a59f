"""Terms (3), (8) and (9) against plain Python loops over the paper's sums, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from msacl_loss import LossTerms, augmentation_loss, centring_loss, position_loss
from msacl_loss.terms import warn_of_large_centring


def slow_centring(z: Tensor, labels: Tensor, centres: Tensor) -> float:
    """Equation (3)."""
    distances = []
    for row, n in zip(z.tolist(), labels.tolist(), strict=True):
        distances.append(sum((a - c) ** 2 for a, c in zip(row, centres[n].tolist(), strict=True)))
    return sum(distances) / len(distances)


def slow_cross_entropy(logits: Tensor, classes: Tensor) -> float:
    """Equations (8) and (9): minus the log of the softmax' component at the true class."""
    terms = []
    for row, n in zip(logits.tolist(), classes.tolist(), strict=True):
        exponentials = [math.exp(value) for value in row]
        terms.append(-math.log(exponentials[n] / sum(exponentials)))
    return sum(terms) / len(terms)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views, labels and centres of random shapes; some classes may be missing."""
    images, dim, classes = draw(st.integers(2, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z_a, z_b = torch.randn(2, images, dim, generator=generator, dtype=torch.float64)
    labels = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)))
    return z_a, z_b, labels, torch.randn(classes, dim, generator=generator, dtype=torch.float64)


@given(problems())
def test_centring(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z, _, labels, centres = problem
    assert centring_loss(z, labels, centres).item() == pytest.approx(slow_centring(z, labels, centres), rel=1e-9)


@given(problems())
def test_augmentation_and_position(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z, _, labels, centres = problem
    logits = 3 * z @ centres.T
    expected = pytest.approx(slow_cross_entropy(logits, labels), rel=1e-9)
    assert augmentation_loss(logits, labels).item() == expected
    assert position_loss(logits, labels).item() == expected


def test_classes_out_of_range_are_refused() -> None:
    z, wrong = torch.zeros(2, 4), torch.tensor([0, -1])
    with pytest.raises(ValueError, match=r"labels in 0\.\.2"):
        centring_loss(z, wrong, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"labels in 0\.\.3"):
        augmentation_loss(z, torch.tensor([0, -100]))
    with pytest.raises(ValueError, match=r"position in 0\.\.3"):
        position_loss(z, torch.tensor([0, 4]))


def test_the_warning_begins_above_ten_times_the_others(recwarn: pytest.WarningsRecorder) -> None:
    def terms(centring: float) -> LossTerms:
        return LossTerms(*(torch.tensor(value) for value in (0.0, centring, -0.5, 0.25, 0.25)))

    assert not warn_of_large_centring(terms(10.0), (1.0, 1.0, 1.0, 1.0), True)
    assert not warn_of_large_centring(terms(10.5), (0.5, 1.0, 1.0, 1.0), True)
    assert not warn_of_large_centring(terms(1.0), (1.0, 0.0, 0.0, 0.0), True)  # on purpose: there is nothing else
    assert len(recwarn) == 0
    for normalize, remedy in ((True, "lower its weight or the learning rate$"), (False, "take normalize=True$")):
        with pytest.warns(RuntimeWarning, match=rf"is 10.5 beside 1 of the other.*; {remedy}"):
            assert warn_of_large_centring(terms(10.5), (1.0, 1.0, 1.0, 1.0), normalize)


def test_a_small_sum_of_the_others_is_no_exception() -> None:
    terms = LossTerms(*(torch.tensor(value) for value in (0.0, 1.0, -0.02, 0.01, 0.02)))
    with pytest.warns(RuntimeWarning, match=r"is 1 beside 0\.05"):
        assert warn_of_large_centring(terms, (1.0, 1.0, 1.0, 1.0), True)


def test_the_warning_points_at_who_called_the_loss() -> None:
    terms = LossTerms(*(torch.tensor(value) for value in (0.0, 99.0, 1.0, 1.0, 1.0)))

    def forward() -> None:
        warn_of_large_centring(terms, (1.0, 1.0, 1.0, 1.0), True)

    def training() -> None:
        forward()

    with pytest.warns(RuntimeWarning) as warned:
        training()
    assert warned[0].lineno == training.__code__.co_firstlineno + 1


def test_values_are_read_on_a_cpu_only() -> None:
    """Elsewhere, for which "meta" stands, the host would have to wait."""
    z, labels = torch.zeros(3, 4, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")
    assert centring_loss(z, labels, z).is_meta
    assert augmentation_loss(z, labels).is_meta
    assert position_loss(z, labels).is_meta
