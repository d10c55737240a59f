"""What the loss needs from torch.distributed: the other processes' rows, and means over all processes' rows.

The convention is that of DistributedDataParallel, which averages the gradients of all processes: every process returns
the value of the joined batch, and the average of their gradients is the joined batch's gradient.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

GatherDistributed = bool | Literal["auto"]


def is_distributed(gather_distributed: GatherDistributed) -> bool:
    """Whether there are other processes to gather from; "auto" gathers whenever there are."""
    return bool(gather_distributed) and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def other_rows(rows: Tensor) -> Tensor:
    """Rows (n, ...) of all other processes, in the order of their ranks, differentiable; n may differ."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, sizes[0].new_tensor([len(rows)]))
    gathered: Tensor = _OtherRows.apply(rows, torch.cat(sizes).tolist())
    return gathered


def joined_mean(mean: Tensor, count: int) -> Tensor:
    """Mean over all processes' rows, given this process's mean over `count` rows; 0 where nobody has a row."""
    joined: Tensor = _JoinedMean.apply(mean, mean.new_tensor(count))
    return joined


class _OtherRows(torch.autograd.Function):
    """All-gather of unequal blocks, padded; backward sums every process's gradient of this process's block."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        blocks = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(blocks, padded)
        rank = dist.get_rank()
        return torch.cat([block[:n] for r, (block, n) in enumerate(zip(blocks, sizes, strict=True)) if r != rank])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rank, sizes = dist.get_rank(), ctx.sizes
        before, own = sum(sizes[:rank]), sizes[rank]
        everyone = torch.cat((grad[:before], grad.new_zeros(own, *grad.shape[1:]), grad[before:]))
        dist.all_reduce(everyone)
        return everyone[before : before + own], None


class _JoinedMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, count: Tensor) -> Tensor:
        sums = torch.stack((mean * count, count))
        dist.all_reduce(sums)
        total = sums[1].clamp(min=1)
        # DistributedDataParallel divides the sum of the processes' gradients by their number.
        ctx.save_for_backward(count * dist.get_world_size() / total)
        return sums[0] / total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return grad * share, None
