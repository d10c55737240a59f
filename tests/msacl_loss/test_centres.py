"""Equation (2): one streaming pass, any batch sizes, right under batch-norm."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from msacl_loss import centre_distances, estimate_centres


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_equals_the_mean_of_each_class_however_the_data_are_cut(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(sum(sizes) + 3, 5, generator=generator, dtype=torch.float64)
    labels = torch.cat((torch.arange(3), torch.randint(3, (sum(sizes),), generator=generator)))
    batches = zip(z.split([3, *sizes]), labels.split([3, *sizes]), strict=True)
    expected = torch.stack([z[labels == n].mean(dim=0) for n in range(3)])
    centres = estimate_centres(nn.Identity(), batches, num_classes=3, normalize=False)
    torch.testing.assert_close(centres, expected, rtol=1e-12, atol=1e-12)


def test_normalised_embeddings_are_averaged_by_default() -> None:
    z, labels = torch.randn(9, 5), torch.arange(9) % 3
    unit = z / z.norm(dim=1, keepdim=True)
    expected = torch.stack([unit[labels == n].mean(dim=0) for n in range(3)])
    torch.testing.assert_close(estimate_centres(nn.Identity(), [(z, labels)], num_classes=3), expected)


def test_float64_sums_keep_a_small_difference_beside_a_large_mean() -> None:
    z = 1e4 + torch.randn(5000, 1)
    batches = zip(z.split(7), torch.zeros(5000, dtype=torch.int64).split(7), strict=True)
    centres = estimate_centres(nn.Identity(), batches, num_classes=1, normalize=False)
    assert centres.dtype == torch.float32
    torch.testing.assert_close(centres, z.double().mean(0, keepdim=True).float(), rtol=0, atol=1e-3)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    net[1].running_mean.uniform_(-1, 1)
    return net


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def embed(self, x: Tensor) -> Tensor:
        return self.net(x)


def function_of(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: net(2 * x)


NET, ENCODER = make_net(), Encoder()
EMBEDDERS = {
    "module": (NET, NET),
    "forward": (NET.forward, NET),
    "method": (ENCODER.embed, ENCODER.net),
    "partial": (partial(NET.forward), NET),
    "closure": (function_of(NET), NET),
    "global": (lambda x: NET(x), NET),
}


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("training", [True, False])
def test_takes_batch_statistics_and_leaves_the_module_as_it_was(kind: str, training: bool) -> None:
    embed, net = EMBEDDERS[kind]
    net.train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batches = [(3 + torch.randn(8, 6), torch.arange(8) % 2) for _ in range(3)]
    centres = estimate_centres(embed, batches, num_classes=2, normalize=False)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(module.training is training for module in net.modules())
    assert net[1].track_running_stats
    assert not centres.requires_grad

    reference = make_net().train()
    factor = 2 if kind == "closure" else 1
    with torch.no_grad():
        z = torch.cat([reference(factor * images) for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    torch.testing.assert_close(centres, torch.stack([z[labels == n].mean(0) for n in range(2)]))


def test_batch_statistics_centre_fresh_encoders_and_running_ones_do_not() -> None:
    """The trap: centred features of a fresh encoder point all one way if eval mode made the centres."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))
    images, labels = 5 + torch.randn(400, 6), torch.arange(400) % 4
    trained_like = net.train()(images).detach()  # also the first update of the running statistics

    def mean_cosine(centres: Tensor) -> float:
        u = nn.functional.normalize(trained_like - centres[labels], dim=1)
        return float((u @ u.T).mean())

    with torch.no_grad():
        z = net.eval()(images)
    in_eval_mode = torch.stack([z[labels == n].mean(0) for n in range(4)])
    ours = estimate_centres(net, [(images, labels)], num_classes=4, normalize=False)
    assert abs(mean_cosine(ours)) < 0.05
    assert mean_cosine(in_eval_mode) > 0.3


def test_the_module_is_restored_when_embedding_fails() -> None:
    net = make_net().eval()
    with pytest.raises(RuntimeError):
        estimate_centres(net, [(torch.randn(4, 5), torch.zeros(4, dtype=torch.int64))], num_classes=1)
    assert not net[1].training
    assert net[1].track_running_stats


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        ([], ValueError, "all 2 classes"),
        ([(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))], ValueError, r"\[3, 0\]"),
        ([(torch.zeros(3, 2), torch.tensor([0, 1, 2]))], ValueError, r"0\.\.1, got 0\.\.2"),
        ([(torch.zeros(3, 2), torch.tensor([0, 1]))], ValueError, r"shape \(3,\)"),
        ([(torch.zeros(3, 2), torch.tensor([0.0, 1.0, 1.0]))], TypeError, "int64"),
        ([(torch.zeros(3, 2, 2), torch.tensor([0, 1, 1]))], ValueError, r"\(N, D\)"),
        ([(torch.zeros(3, 2).int(), torch.tensor([0, 1, 1]))], TypeError, "floating"),
    ],
)
def test_bad_input(batches: list[tuple[Tensor, Tensor]], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        estimate_centres(nn.Identity(), batches, num_classes=2)


def test_centre_distances() -> None:
    centres = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    expected = torch.tensor([[0.0, 5.0, 1.0], [5.0, 0.0, 18.0**0.5], [1.0, 18.0**0.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(centre_distances(centres), expected)


def test_module_bound_as_an_argument_is_found() -> None:
    net = nn.BatchNorm1d(3)
    embed = partial(lambda model, x: model(x), net)
    estimate_centres(embed, [(torch.randn(8, 3), torch.arange(8) % 2)], num_classes=2)
    assert not net.running_mean.any()


def test_an_embedding_without_modules_is_taken_as_it_is() -> None:
    """Nothing to switch to batch statistics in a C function."""
    z = torch.tensor([[-1.0, 2.0], [3.0, -4.0]])
    centres = estimate_centres(torch.relu, [(z, torch.tensor([0, 1]))], num_classes=2, normalize=False)
    assert centres.tolist() == [[0.0, 2.0], [3.0, 0.0]]


def test_distances_of_many_centres_far_from_zero_are_exact() -> None:
    """Products of such rows would cancel."""
    centres = 1e6 + torch.rand(40, 3, dtype=torch.float64)
    expected = (centres[:, None] - centres).square().sum(dim=2).sqrt()
    torch.testing.assert_close(centre_distances(centres), expected, rtol=1e-9, atol=0)
