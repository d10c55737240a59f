"""Mean and products of a batch: what streamed moments are updated with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.padim.tree import Level, grouped, split_blocks


def centre_on_mean(values: Tensor, out: Tensor) -> Tensor:
    """Write values (cells, channels, B) minus their mean over B to out; return the mean in float64.

    Two float32 steps, mean and mean of the rest, are as exact as float64 where the mean is far above the spread.
    """
    high = values.mean(-1)
    torch.sub(values, high[..., None], out=out)
    low = out.mean(-1)
    out -= low[..., None]
    return high.double() + low.double()


def add_products(moments: Tensor, columns: list[Tensor], levels: Sequence[Level]) -> None:
    """Add the products of columns (cells, channels, K) of every level with those of it and each coarser one."""
    blocks = split_blocks(moments, levels)
    for (level, j), block in blocks.items():
        coarse = columns[j]
        ancestors = len(coarse)
        own = grouped(columns[level], ancestors)
        grouped(block, ancestors).baddbmm_(own, coarse.mT)
