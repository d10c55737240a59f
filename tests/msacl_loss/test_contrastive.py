"""Equations (4) to (7) against plain loops and outside NT-Xent losses; invariances, bounds, extreme values."""

import itertools
import math
from collections.abc import Callable

import lightly.loss
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import problems
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from msacl_loss import calibrated_contrastive_loss, contrastive
from msacl_loss.contrastive import _is_dense

FORMS = pytest.mark.parametrize("implementation", ["dense", "streaming"])
OPTIONS = {
    "temperature": st.floats(0.05, 2.0),
    "alpha": st.floats(1.0, 20.0),
    "positive": st.sampled_from(["paper", "nll", "decoupled"]),
    "implementation": st.sampled_from(["dense", "streaming"]),
}


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


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", ["dense", "streaming"])
@pytest.mark.parametrize("positive", ["paper", "nll", "decoupled"])
@given(problem=problems(), tau=st.floats(0.05, 2.0), alpha=st.floats(1.0, 20.0))
def test_equals_loops_over_the_sums(
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


@given(problem=problems(), options=st.fixed_dictionaries(OPTIONS), data=st.data())
def test_batch_order_and_view_swaps_do_not_matter(problem, options, data) -> None:
    z_a, z_b, labels, centres = problem
    order = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    swap = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))[:, None]
    first, second = torch.where(swap, z_b, z_a), torch.where(swap, z_a, z_b)
    shuffled = calibrated_contrastive_loss(first[order], second[order], labels[order], centres, **options)
    assert_same(shuffled, calibrated_contrastive_loss(*problem, **options))


@given(problem=problems(), options=st.fixed_dictionaries(OPTIONS), scale=st.floats(0.01, 100.0))
def test_translation_rotation_and_scale_about_the_centre_do_not_matter(problem, options, scale) -> None:
    z_a, z_b, labels, centres = problem
    shift, matrix = z_a[0] + 1.0, torch.linalg.qr(torch.vander(torch.arange(1.0, len(z_a[0]) + 1)).double())[0]
    expected = calibrated_contrastive_loss(*problem, **options)
    assert_same(calibrated_contrastive_loss(z_a + shift, z_b + shift, labels, centres + shift, **options), expected)
    assert_same(calibrated_contrastive_loss(z_a @ matrix, z_b @ matrix, labels, centres @ matrix, **options), expected)
    scaled = [centres[labels] + scale * (z - centres[labels]) for z in (z_a, z_b)]
    assert_same(calibrated_contrastive_loss(*scaled, labels, centres, **options), expected)


@given(problem=problems(), options=st.fixed_dictionaries(OPTIONS))
def test_names_of_the_classes_do_not_matter(problem, options) -> None:
    z_a, z_b, labels, centres = problem
    renamed = calibrated_contrastive_loss(z_a, z_b, len(centres) - 1 - labels, centres.flip(0), **options)
    assert_same(renamed, calibrated_contrastive_loss(*problem, **options))


@given(tau=st.floats(0.05, 2.0), alpha=st.floats(1.0, 20.0), images=st.integers(2, 9), form=OPTIONS["implementation"])
def test_duplicates_have_the_closed_form(tau: float, alpha: float, images: int, form: str) -> None:
    """All embeddings of one class equal: all products are 1 and all 2B - 1 entries of the denominator are alike."""
    z, labels, centres = torch.ones(images, 3).double(), torch.zeros(images, dtype=torch.int64), torch.zeros(1, 3)
    loss = calibrated_contrastive_loss(z, z, labels, centres, temperature=tau, alpha=alpha, implementation=form)
    assert loss.item() == pytest.approx(math.log(2 * images - 1) + (1 / alpha - 1) / tau, abs=1e-9)


@given(problem=problems(), tau=st.floats(0.05, 2.0), alpha=st.floats(1.0, 20.0))
def test_bounds(problem, tau: float, alpha: float) -> None:
    options = {"temperature": tau, "alpha": alpha}
    assert calibrated_contrastive_loss(*problem, positive="paper", **options) >= -(1 - 1 / alpha) / tau - 1e-9
    assert calibrated_contrastive_loss(*problem, positive="nll", **options) >= 0


@given(problem=problems(), options=st.fixed_dictionaries(OPTIONS))
def test_embedding_at_its_centre_is_finite_and_gets_no_gradient(problem, options) -> None:
    z_a, z_b, labels, centres = problem
    z_a = z_a.clone()
    z_a[0] = centres[labels[0]]
    z_a.requires_grad_()
    loss = calibrated_contrastive_loss(z_a, z_b, labels, centres, **options)
    (gradient,) = torch.autograd.grad(loss, z_a)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert not gradient[0].any()


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_low_precision_is_computed_in_float32(implementation: str, dtype: torch.dtype, scale: float) -> None:
    z_a, z_b = (scale * torch.randn(2, 20, 16).clamp(-3, 3)).to(dtype)
    labels, centres = torch.arange(20) % 4, torch.zeros(4, 16)
    z_a.requires_grad_()
    options = {"implementation": implementation}
    exact = calibrated_contrastive_loss(z_a.double(), z_b.double(), labels, centres.double(), **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = calibrated_contrastive_loss(z_a, z_b, labels, centres, **options)
        (gradient,) = torch.autograd.grad(loss, z_a)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)


@FORMS
@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 0.024, 0.026, 0.05, 0.2])
def test_small_temperatures_do_not_underflow(implementation: str, temperature: float) -> None:
    """float32 near float64 on both sides of the switch to the running maximum, at kappa = 40."""
    z_a, z_b = torch.randn(2, 40, 8)
    z_b = z_a + 0.1 * z_b
    z_a.requires_grad_()
    labels, centres = torch.arange(40) % 3, torch.zeros(3, 8)
    options = {"temperature": temperature, "implementation": implementation}
    loss = calibrated_contrastive_loss(z_a, z_b, labels, centres, **options)
    exact = calibrated_contrastive_loss(z_a.double(), z_b.double(), labels, centres.double(), **options)
    (gradient,) = torch.autograd.grad(loss, z_a)
    (expected,) = torch.autograd.grad(exact, z_a)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5 / temperature)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 / temperature)


@FORMS
@pytest.mark.parametrize("positive", ["paper", "nll", "decoupled"])
def test_gradcheck(implementation: str, positive: str) -> None:
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    labels, centres = torch.tensor([0, 1, 1, 0]), torch.randn(2, 3, dtype=torch.float64)

    def loss(z: Tensor) -> Tensor:
        options = {"positive": positive, "implementation": implementation}
        return calibrated_contrastive_loss(z[0], z[1], labels, centres, **options)

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


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


def test_auto_takes_the_dense_form_up_to_a_size() -> None:
    """384 rows on a CPU, 4096 on an accelerator, for which "meta" stands; other processes' rows count as columns."""
    for device, rows in (("cpu", 384), ("meta", 4096)):
        pairs, none, one = (torch.empty(shape, device=device) for shape in ((rows // 2, 2, 1), (0, 1), (1, 1)))
        assert _is_dense(pairs, none, "auto")
        assert not _is_dense(pairs, one, "auto")
        assert _is_dense(pairs, one, "dense")
        assert not _is_dense(pairs, none, "streaming")


def test_a_row_beside_its_centre_has_no_direction() -> None:
    """At most 1e-6 from it by default, or as far as eps says; 0 refuses the centre itself only."""
    labels, centres = torch.tensor([0, 0, 1]), torch.zeros(2, 3)

    def gradient(distance: float, **options: float) -> float:
        z = torch.eye(3)
        z[0] *= distance
        z.requires_grad_()
        calibrated_contrastive_loss(z, torch.eye(3).flip(1), labels, centres, **options).backward()
        return float(z.grad[0].abs().sum())

    assert gradient(0.9e-6) == 0
    assert gradient(1.2e-6) > 0
    assert gradient(0.5, eps=0.6) == 0
    assert gradient(1e-12, eps=0.0) > 0
    assert gradient(0.0, eps=0.0) == 0


def test_values_are_read_outside_the_compiler_only(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels, centres = torch.full((2, 3), math.nan), torch.tensor([0, 1]), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="finite z_a"):
        calibrated_contrastive_loss(z, z, labels, centres)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert calibrated_contrastive_loss(z, z, labels, centres).isnan()


def test_the_form_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their values are equal, their costs are not."""
    taken = []

    def recorded(form: str) -> Callable[..., Tensor]:
        plain = getattr(contrastive, f"{form}_log_negatives")
        return lambda *arguments: taken.append(form) or plain(*arguments)

    for form in ("dense", "streaming"):
        monkeypatch.setattr(contrastive, f"{form}_log_negatives", recorded(form))
    for images, implementation in ((2, "dense"), (2, "streaming"), (192, "auto"), (193, "auto")):
        z = torch.ones(images, 2)
        labels = torch.zeros(images, dtype=torch.int64)
        calibrated_contrastive_loss(z, z, labels, torch.zeros(1, 2), implementation=implementation)
    assert taken == ["dense", "streaming", "dense", "streaming"]
