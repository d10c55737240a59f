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
    own_size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(own_size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own_size)
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
        # Without the padding, and without this process's own block.
        unpadded = [block[:size] for block, size in zip(blocks, sizes, strict=True)]
        del unpadded[dist.get_rank()]
        return torch.cat(unpadded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # A place of zeros for the own block makes the processes' gradients line up.
        rank = dist.get_rank()
        before = sum(ctx.sizes[:rank])
        own = ctx.sizes[rank]
        zeros = grad.new_zeros(own, *grad.shape[1:])
        everyone = torch.cat((grad[:before], zeros, grad[before:]))
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
