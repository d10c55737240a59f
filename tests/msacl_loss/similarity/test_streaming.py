"""The streaming form against the dense one, over tiles of any size; its operators, and the memory it takes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import problems
from torch._subclasses import FakeTensorMode

from msacl_loss import calibrated_contrastive_loss
from msacl_loss.similarity import streaming, tiles
from msacl_loss.similarity.dense import dense_log_negatives
from msacl_loss.similarity.kappas import Kappas
from msacl_loss.similarity.streaming import streaming_log_negatives


@given(
    problem=problems(), kappas=st.tuples(st.floats(0.1, 39), st.floats(0.1, 39)), large=st.booleans(), data=st.data()
)
@pytest.mark.parametrize("host_reads", [True, False])
def test_both_forms_are_equal(host_reads: bool, problem, kappas, large: bool, data) -> None:
    """Values and gradients, over several tiles of uneven classes, with and without other processes' columns."""
    z_a, z_b, labels, centres = problem
    kappas = tuple(10 * kappa for kappa in kappas) if large else kappas
    pairs = torch.nn.functional.normalize(torch.stack((z_a, z_b), 1), dim=-1).requires_grad_()
    num_others = 2 * data.draw(st.integers(0, 5))
    others = torch.nn.functional.normalize(centres[:1] + torch.arange(num_others)[:, None] * z_a[:1], dim=-1)
    others.requires_grad_()
    other_labels = torch.arange(num_others) % len(centres)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_CPU", data.draw(st.sampled_from([2, 4, 6, 512])))
        if not host_reads:  # the way of accelerators
            patch.setattr(tiles, "class_runs", lambda labels: None)
        if not data.draw(st.booleans()):  # the way of large batches
            patch.setattr(streaming, "MOST_KEPT", 0)
        results = []
        for form in (dense_log_negatives, streaming_log_negatives):
            value = form(pairs, labels, others, other_labels, Kappas(*kappas))
            slopes = torch.cos(torch.arange(value.numel()).double()).view(value.shape)
            gradients = torch.autograd.grad(value, (pairs, others), slopes, allow_unused=True)
            results.append((value, *gradients))
    for dense, streamed in zip(*results, strict=True):
        torch.testing.assert_close(streamed, dense, rtol=1e-10, atol=1e-10 * max(1, *kappas))


def test_many_classes_and_rows_over_several_real_tiles() -> None:
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, 700, 16, generator=generator, dtype=torch.float64).requires_grad_()
    for num_classes in (1, 3, 300):
        labels = torch.randint(num_classes, (700,), generator=generator)
        centres = torch.zeros(num_classes, 16)
        results = []
        for form in ("dense", "streaming"):
            loss = calibrated_contrastive_loss(z_a, z_b, labels, centres, implementation=form)
            results.append((loss, *torch.autograd.grad(loss, (z_a, z_b))))
        torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("kappas", [(2.5, 5.0), (50.0, 100.0)])
@pytest.mark.parametrize("num_others", [0, 4])
@pytest.mark.parametrize("most_kept", [0, streaming.MOST_KEPT])
def test_opcheck(kappas: tuple[float, float], num_others: int, most_kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_KEPT", most_kept)
    pairs = torch.nn.functional.normalize(torch.randn(5, 2, 3), dim=-1).requires_grad_()
    others = torch.nn.functional.normalize(torch.randn(num_others, 3), dim=-1).requires_grad_()
    labels, other_labels = torch.arange(5) % 2, torch.arange(num_others) % 2
    torch.library.opcheck(streaming._forward_operator, (pairs, labels, others, other_labels, *kappas))
    log_sums, kept = streaming._forward_operator(pairs, labels, others, other_labels, *kappas)
    args = (
        torch.ones(5, 2),
        log_sums.detach(),
        kept.detach(),
        pairs.detach(),
        labels,
        others.detach(),
        other_labels,
        *kappas,
    )
    torch.library.opcheck(streaming._backward_operator, args)


def test_streaming_memory_does_not_grow_with_the_square() -> None:
    """No tensor of the forward and backward pass is larger than a few vectors per row or one tile."""
    images, dim = 1500, 8
    z_a, z_b = torch.randn(2, images, dim).requires_grad_()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        calibrated_contrastive_loss(z_a, z_b, torch.arange(images) % 4, torch.zeros(4, dim)).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 4 * (2 * images) ** 2 / 10  # bytes; the matrix itself has ten times that


def test_tiles_are_kept_up_to_a_size() -> None:
    """On a CPU, where nothing needs a running maximum: 2^22 numbers, half of the own matrix and all other products."""
    pairs, most = torch.empty(1, 2, 1), streaming.MOST_KEPT
    small, large = Kappas(2.5, 5.0), Kappas(2.5, 50.0)
    assert most == 2**22
    assert streaming._num_kept(pairs, torch.empty(0, 1), small) == 2 * (2 + 512) // 2
    assert streaming._num_kept(torch.empty(3, 2, 1), torch.empty(4, 1), small) == 6 * (6 + 512) // 2 + 6 * 4
    just = torch.empty(1, 1).expand((most - 514) // 2, 1)
    assert streaming._num_kept(pairs, just, small) == most
    assert streaming._num_kept(pairs, torch.empty(1, 1).expand(len(just) + 1, 1), small) == 0
    assert streaming._num_kept(pairs, just, large) == 0
    assert streaming._num_kept(pairs.to("meta"), just.to("meta"), small) == 0


def test_what_is_kept_is_filled() -> None:
    """What the tiles leave of the room is 0, not whatever the memory held."""
    pairs = torch.nn.functional.normalize(torch.randn(3, 2, 4), dim=-1)
    labels = torch.arange(3)
    _, kept = streaming._forward_operator(pairs, labels, pairs[:0, 0], labels[:0], 2.5, 5.0)
    used = sum(tile.size for tile in tiles.upper_tiles(tiles.sort_views(pairs, labels, pairs[:0, 0], labels[:0])))
    assert len(kept) == 6 * (6 + 512) // 2
    assert (kept[used:] == 0).all()
    assert (kept[:used] == 0).sum() == 3 * 4  # each view beside itself and its positive


@pytest.mark.parametrize("form", [dense_log_negatives, streaming_log_negatives])
def test_second_derivatives_and_no_derivatives(form) -> None:
    pairs = torch.nn.functional.normalize(torch.randn(3, 2, 4, dtype=torch.float64), dim=-1).requires_grad_()
    others = torch.nn.functional.normalize(torch.randn(2, 4, dtype=torch.float64), dim=-1).requires_grad_()
    labels, kappas = torch.arange(3) % 2, Kappas(1.5, 3.0)

    def value(pairs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return form(pairs, labels, others, labels[:2], kappas)

    assert torch.autograd.gradgradcheck(value, (pairs, others))
    assert not form(pairs.detach(), labels, others.detach(), labels[:2], kappas).requires_grad


def test_autocast_changes_nothing() -> None:
    pairs = torch.nn.functional.normalize(torch.randn(5, 2, 3), dim=-1).requires_grad_()
    labels, others = torch.arange(5) % 2, torch.empty(0, 3)
    for kappas in (Kappas(2.5, 5.0), Kappas(50.0, 100.0)):
        plain = streaming_log_negatives(pairs, labels, others, labels[:0], kappas)
        (gradient,) = torch.autograd.grad(plain.sum(), pairs)
        with torch.autocast("cpu"):
            cast = streaming_log_negatives(pairs, labels, others, labels[:0], kappas)
            (cast_gradient,) = torch.autograd.grad(cast.sum(), pairs)
        assert torch.equal(cast, plain)
        assert torch.equal(cast_gradient, gradient)


def test_gradients_stay_finite_where_exponentials_do_not() -> None:
    """exp(100) is no float32; columns of other processes, which have no sum of their own, take part in it."""
    pairs, others = torch.ones(2, 2, 1, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    labels = torch.arange(2)
    value = streaming_log_negatives(pairs, labels, others, labels, Kappas(100.0, 100.0))
    gradients = torch.autograd.grad(value.sum(), (pairs, others))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    torch.testing.assert_close(gradients[1], torch.full((2, 1), 100.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("num_others", [0, 4])
def test_the_compiler_is_told_the_shapes(num_others: int) -> None:
    pairs, labels = torch.ones(3, 2, 4), torch.arange(3)
    others, other_labels = torch.ones(num_others, 4), torch.zeros(num_others, dtype=torch.int64)
    arguments = (pairs, labels, others, other_labels)
    for kappas in ((2.5, 5.0), (50.0, 100.0)):
        real = streaming._forward_operator(*arguments, *kappas)
        with FakeTensorMode() as fake:
            told = streaming._forward_operator(*(fake.from_tensor(argument) for argument in arguments), *kappas)
        assert [output.shape for output in told] == [output.shape for output in real]


def test_the_dense_form_takes_nothing_from_the_host() -> None:
    pairs, labels = torch.ones(3, 2, 4, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")
    assert dense_log_negatives(pairs, labels, pairs[:0, 0], labels[:0], Kappas(1.0, 2.0)).is_meta
