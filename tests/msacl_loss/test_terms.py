"""Each term against plain Python loops over the paper's sums, in float64, and against outside NT-Xent losses."""

import itertools
import math

import lightly.loss
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from msacl_loss import augmentation_loss, calibrated_contrastive_loss, centring_loss, position_loss


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


def slow_contrastive(
    views: list[list[list[float]]],
    labels: list[int],
    centres: list[list[float]],
    tau: float,
    alpha: float,
    positive: str,
) -> float:
    """Equations (4) to (7); views[l][i] is the embedding of view l of image i."""

    def direction(l: int, i: int) -> list[float]:  # noqa: E741  # the paper's letter
        offset = [a - c for a, c in zip(views[l][i], centres[labels[i]], strict=True)]
        norm = math.sqrt(sum(value**2 for value in offset))
        return [value / norm for value in offset]

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    def kappa(n: int, m: int) -> float:
        return 1 / (alpha * tau) if n == m else 1 / tau

    f = [[direction(l, i) for i in range(len(labels))] for l in range(2)]  # noqa: E741
    losses = []
    for i, n in enumerate(labels):
        for l in range(2):  # noqa: E741
            partner = (l + 1) % 2
            numerator = math.exp(product(f[l][i], f[partner][i]) / tau)
            denominator = 0.0
            for j, m in enumerate(labels):
                for k in range(2):
                    if (j, k) == (i, l):
                        continue
                    factor = kappa(n, m)
                    if (j, k) == (i, partner):
                        factor = {"paper": factor, "nll": 1 / tau, "decoupled": None}[positive]
                    if factor is not None:
                        denominator += math.exp(factor * product(f[l][i], f[k][j]))
            losses.append(-math.log(numerator / denominator))
    return sum(losses) / len(losses)


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


@pytest.mark.parametrize("implementation", ["dense", "streaming"])
@pytest.mark.parametrize("positive", ["paper", "nll", "decoupled"])
@given(problem=problems(), tau=st.floats(0.05, 2.0), alpha=st.floats(1.0, 20.0))
def test_contrastive(
    positive: str, implementation: str, problem: tuple[Tensor, Tensor, Tensor, Tensor], tau: float, alpha: float
) -> None:
    z_a, z_b, labels, centres = problem
    loss = calibrated_contrastive_loss(
        *problem, temperature=tau, alpha=alpha, positive=positive, implementation=implementation
    )
    views = [z_a.tolist(), z_b.tolist()]
    expected = slow_contrastive(views, labels.tolist(), centres.tolist(), tau, alpha, positive)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(images=st.integers(2, 12), dim=st.integers(2, 9), tau=st.floats(0.05, 1.0), seed=st.integers(0, 2**31))
def test_is_nt_xent_with_alpha_one_and_zero_centres(images: int, dim: int, tau: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, images, dim, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(4, (images,), generator=generator)
    centres = torch.zeros(4, dim, dtype=torch.float64)
    peers = (
        NTXentLoss(tau)(z.flatten(0, 1), torch.arange(images).repeat(2)),
        lightly.loss.NTXentLoss(tau)(z[0], z[1]),
    )
    expected = [(peer, torch.autograd.grad(peer, z)[0]) for peer in peers]
    for positive, implementation in itertools.product(("paper", "nll"), ("dense", "streaming")):
        options = {"temperature": tau, "alpha": 1.0, "positive": positive, "implementation": implementation}
        ours = calibrated_contrastive_loss(z[0], z[1], labels, centres, **options)
        (gradient,) = torch.autograd.grad(ours, z)
        for value, slope in expected:
            torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-9)


def test_classes_out_of_range_are_refused() -> None:
    z, wrong = torch.zeros(2, 4), torch.tensor([0, -1])
    with pytest.raises(ValueError, match=r"labels in 0\.\.2"):
        centring_loss(z, wrong, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"labels in 0\.\.3"):
        augmentation_loss(z, torch.tensor([0, -100]))
    with pytest.raises(ValueError, match=r"position in 0\.\.3"):
        position_loss(z, torch.tensor([0, 4]))


@pytest.mark.parametrize(
    ("centres", "error", "words"),
    [
        ([[0.0]], TypeError, "tensor"),
        (torch.zeros(4), ValueError, "shape"),
        (torch.full((2, 4), math.nan), ValueError, "finite"),
    ],
)
def test_bad_centres_are_refused(centres: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        calibrated_contrastive_loss(torch.eye(4), torch.eye(4), torch.tensor([0, 0, 1, 1]), centres)
