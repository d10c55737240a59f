"""From moments to whitening: block-Cholesky factors of all nested covariances, in float64 and in chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.padim.tree import Level, grouped, position, split_blocks

CHUNK_ELEMENTS = 1_000_000  # of the finest level's covariances at once: 8 MB each


def factorise(moments: Tensor, count: float, eps: float, levels: Sequence[Level]) -> Tensor:
    """Return the whitening weights of all covariances moments / (count - 1) + eps I, laid out as the moments.

    The weights of level l whiten its centred values x_l: y_l = W_ll x_l + W_l0 y_0 + ... + W_l,l-1 y_l-1, each y being
    that of the cell's ancestor. The y of all levels are uncorrelated with variance 1, so squared distances are sums of
    their squares.

    Raises:
        ValueError: If a covariance is not positive definite; the message names the position.
    """
    whitening = torch.empty_like(moments)
    blocks, out = split_blocks(moments, levels), split_blocks(whitening, levels)
    roots, finest = levels[0].cells, levels[-1]
    below_root = finest.cells // roots * finest.channels * sum(v.channels for v in levels)
    chunk = max(1, CHUNK_ELEMENTS // max(1, below_root))
    for start in range(0, roots, chunk):
        stop = min(start + chunk, roots)
        weights: list[list[Tensor]] = []
        for level, grid in enumerate(levels):
            cells = slice(start * (grid.cells // roots), stop * (grid.cells // roots))
            covariances = [blocks[level, j][cells].double().div_(count - 1) for j in range(level + 1)]
            covariances[level].diagonal(dim1=1, dim2=2).add_(eps)
            rows, info = whitening_rows(covariances, weights)
            if bool(info.any()):
                raise factorisation_error(levels, level, cells.start + int(info.nonzero()[0]), eps)
            weights.append(rows)
            for j, row in enumerate(rows):
                out[level, j][cells] = row
    return whitening


def whitening_rows(covariances: list[Tensor], weights: list[list[Tensor]]) -> tuple[list[Tensor], Tensor]:
    """Weights of one level, given those of all coarser ones.

    Args:
        covariances: (cells, c, c_j) with each coarser level j, last with the level itself.
        weights: Of each coarser level, as returned here.

    Returns:
        Weights (cells, c, c_j), and LAPACK's info (cells,): not 0 where the covariance is not positive definite.
    """
    *crosses, own = covariances
    factors: list[Tensor] = []  # covariances with the whitened coarser levels: the Cholesky factor's rows
    for cross, coarse in zip(crosses, weights, strict=True):
        parents = len(coarse[-1])
        factor = grouped(cross, parents).bmm(coarse[-1].mT)
        for earlier, weight in zip(factors, coarse[:-1], strict=True):
            factor.baddbmm_(grouped(earlier, parents), weight.mT)
        factors.append(factor.view_as(cross))
    for factor in factors:
        own.baddbmm_(factor, factor.mT, alpha=-1)
    lower, info = torch.linalg.cholesky_ex(own)
    identity = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
    inverse = torch.linalg.solve_triangular(lower, identity.expand_as(own), upper=False)
    return [*(-inverse.bmm(factor) for factor in factors), inverse], info


def whiten(centred: list[Tensor], whitening: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Whitened values (cells, channels, B) of each level: the recursion that `factorise` describes."""
    weights = split_blocks(whitening, levels)
    white: list[Tensor] = []
    for level, values in enumerate(centred):
        own = product(weights[level, level], values)
        for j, coarse in enumerate(white):
            add_product(own, grouped(weights[level, j], len(coarse)), coarse)
        white.append(own)
    return white


def product(weight: Tensor, values: Tensor) -> Tensor:
    """Return weight @ values, batched over cells: (n, r, c) and (n, c, B) give (n, r, B)."""
    cells, rows, columns = weight.shape
    if values.shape[2] > 1:
        return weight.bmm(values)
    return values.view(cells, 1, columns).bmm(weight.mT).view(cells, rows, 1)  # three times as fast on the CPU


def add_product(total: Tensor, weight: Tensor, values: Tensor) -> None:
    """Add weight (n, r, c) @ values (n, c, B) to total (n k, r / k, B), whose cells are grouped by those of values."""
    cells, rows, columns = weight.shape
    if values.shape[2] > 1:
        total.view(cells, rows, values.shape[2]).baddbmm_(weight, values)
    else:  # `.mT` of a column would have strides that are slow
        total.view(cells, 1, rows).baddbmm_(values.view(cells, 1, columns), weight.mT)


def factorisation_error(levels: Sequence[Level], level: int, cell: int, eps: float) -> ValueError:
    """Say where a covariance is not positive definite, and what to do."""
    row, column = position(levels, level, cell)
    grid = levels[level]
    return ValueError(
        f"expected positive definite covariances, but that at row {row}, column {column} of the {grid.rows} x "
        f"{grid.columns} grid is not: choose eps above {eps}, fit on more images, or look for non-finite features"
    )
