"""Two real processes: the loss, its gradients and the centres equal those of one process with the joined batch."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msacl_loss import MSACLLoss, estimate_centres

IMPLEMENTATIONS = ("dense", "streaming")
DIM, SIZES, PATCHES = 6, (5, 3), (2, 4)  # unequal batches of images and of patch pairs


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


def process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for implementation in IMPLEMENTATIONS:
        model = Model(implementation)
        results = train_step(DistributedDataParallel(model), model.criterion, share(rank))
        torch.save(results, folder / f"{implementation}{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, tmp_path), nprocs=2)
    for implementation in IMPLEMENTATIONS:
        model = Model(implementation)
        expected = train_step(model, model.criterion, batch())
        for rank in range(2):
            results = torch.load(tmp_path / f"{implementation}{rank}.pt", weights_only=True)
            torch.testing.assert_close(results, expected, rtol=1e-6, atol=1e-6)
