"""Two real processes: the loss, its gradients and the centres equal those of one process with the joined batch."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msacl_loss import MSACLLoss, calibrated_contrastive_loss, estimate_centres
from msacl_loss.distributed import is_distributed, joined_mean

IMPLEMENTATIONS = ("dense", "streaming")
DIM, SIZES, PATCHES = 6, (7, 1), (2, 4)  # unequal batches of images and of patch pairs


class Model(nn.Module):
    """An encoder with its criterion, as a training step wraps them."""

    def __init__(self, implementation: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(4, DIM)
        self.criterion = MSACLLoss(DIM, implementation=implementation)

    def forward(self, views: Tensor, labels: Tensor, patches: Tensor, position: Tensor) -> tuple[Tensor, ...]:
        z_a, z_b = self.encoder(views)
        return self.criterion(z_a, z_b, labels, patch_pairs=(*self.encoder(patches), position))


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(2, sum(SIZES), 4, generator=generator)
    patches = torch.randn(2, sum(PATCHES), 4, generator=generator)
    return views, torch.arange(sum(SIZES)) % 4, patches, torch.arange(sum(PATCHES))


def share(rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    views, labels, patches, position = batch()
    images, pairs = (slice(sum(sizes[:rank]), sum(sizes[: rank + 1])) for sizes in (SIZES, PATCHES))
    return views[:, images], labels[images], patches[:, pairs], position[pairs]


def train_step(model: nn.Module, criterion: MSACLLoss, data: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Terms and gradients of a step, after the centres were estimated from the same data."""
    views, labels = data[0].flatten(0, 1), data[1].repeat(2)
    encoder = model.module.encoder if isinstance(model, DistributedDataParallel) else model.encoder
    halves = ((views[:4], labels[:4]), (views[4:], labels[4:]))
    centres = estimate_centres(encoder, halves, num_classes=4)
    criterion.set_centres(centres)
    terms = model(*data)
    terms.total.backward()
    gradients = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return {"centres": centres, **{k: v.detach() for k, v in terms._asdict().items()}, **gradients}


def alone_and_without_patches(rank: int) -> dict[str, Tensor]:
    """Centres of this process's rows only; the position term where the first process has no patch pairs."""
    views, labels, patches, position = share(rank)
    criterion = MSACLLoss(4, num_classes=1, gather_distributed=False)
    criterion.fit_centres(nn.Identity(), [(views[0], torch.zeros_like(labels))])
    terms = reference()(*views, labels, (*patches, position) if rank == 1 else None)
    first_views, second_views = views
    own = calibrated_contrastive_loss(first_views, second_views, labels, torch.zeros(4, 4))  # of one image, too
    return {"contrastive": own.detach(), "centres": criterion.centres, "position": terms.position.detach()}


def reference() -> MSACLLoss:
    torch.manual_seed(0)
    criterion = MSACLLoss(4)
    criterion.set_centres(torch.zeros(4, 4))
    return criterion


def process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for implementation in IMPLEMENTATIONS:
        model = Model(implementation)
        results = train_step(DistributedDataParallel(model), model.criterion, share(rank))
        torch.save(results, folder / f"{implementation}{rank}.pt")
    torch.save(alone_and_without_patches(rank), folder / f"other{rank}.pt")
    dist.destroy_process_group()


FORK = pytest.param("fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="forks are safe on Linux only"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 on: pytest-xdist has threads
@pytest.mark.parametrize("start", [FORK, pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_the_joined_batch(tmp_path: Path, start: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(process, (port, tmp_path), nprocs=2, start_method=start)
    for implementation in IMPLEMENTATIONS:
        model = Model(implementation)
        expected = train_step(model, model.criterion, batch())
        for rank in range(2):
            results = torch.load(tmp_path / f"{implementation}{rank}.pt", weights_only=True)
            torch.testing.assert_close(results, expected, rtol=1e-6, atol=1e-6)

    (z_a, z_b), labels, _, _ = batch()
    expected_contrastive = calibrated_contrastive_loss(z_a, z_b, labels, torch.zeros(4, 4))
    views, labels, patches, position = share(1)
    expected_position = reference()(*views.repeat(1, 2, 1), labels.repeat(2), (*patches, position)).position
    for rank in range(2):
        other = torch.load(tmp_path / f"other{rank}.pt", weights_only=True)
        own = share(rank)[0][0]
        torch.testing.assert_close(other["centres"], torch.nn.functional.normalize(own).mean(0, keepdim=True))
        torch.testing.assert_close(other["contrastive"], expected_contrastive)
        torch.testing.assert_close(other["position"], expected_position.detach())


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_gathers_from_nobody(group_of_one: None) -> None:
    for gather in ("auto", True, False):
        assert not is_distributed(gather)


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (1, 3.0), (2, 3.0)])
def test_the_mean_of_one_process_is_its_own(count: int, expected: float, group_of_one: None) -> None:
    mean = torch.tensor(3.0, requires_grad=True)
    joined = joined_mean(mean, count)
    joined.backward()
    assert (joined.item(), mean.grad.item()) == (expected, expected / 3)
