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
    blocks = split_blocks(moments, levels)
    out = split_blocks(whitening, levels)
    # Only cells below one root meet: a chunk of roots is worked off from coarse to fine.
    roots = levels[0].cells
    chunk = _roots_at_once(levels)
    for start in range(0, roots, chunk):
        stop = min(start + chunk, roots)
        weights: list[list[Tensor]] = []
        for level, grid in enumerate(levels):
            per_root = grid.cells // roots
            cells = slice(start * per_root, stop * per_root)
            covariances = []
            for j in range(level + 1):
                block = blocks[level, j]
                chosen = block[cells].double()
                covariances.append(chosen.div_(count - 1))
            diagonal = covariances[level].diagonal(dim1=1, dim2=2)
            diagonal.add_(eps)
            rows, info = whitening_rows(covariances, weights)
            if bool(info.any()):
                failed = int(info.nonzero()[0])
                raise factorisation_error(levels, level, cells.start + failed, eps)
            weights.append(rows)
            for j, row in enumerate(rows):
                out[level, j][cells] = row
    return whitening


def _roots_at_once(levels: Sequence[Level]) -> int:
    """How many cells of the coarsest level make a chunk."""
    coarsest = levels[0]
    finest = levels[-1]
    cells = finest.cells // coarsest.cells
    columns = sum(level.channels for level in levels)
    below_root = cells * finest.channels * columns
    chunk = CHUNK_ELEMENTS // max(1, below_root)
    return max(1, chunk)


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
        *coarse_crosses, coarse_own = coarse
        parents = len(coarse_own)
        factor = grouped(cross, parents).bmm(coarse_own.mT)
        for earlier, weight in zip(factors, coarse_crosses, strict=True):
            factor.baddbmm_(grouped(earlier, parents), weight.mT)
        factors.append(factor.view_as(cross))
    # What the coarser levels explain goes out of the own covariance; the rest has a factor of its own.
    for factor in factors:
        own.baddbmm_(factor, factor.mT, alpha=-1)
    lower, info = torch.linalg.cholesky_ex(own)
    channels = own.shape[1]
    identity = torch.eye(channels, dtype=own.dtype, device=own.device)
    identities = identity.expand_as(own)
    inverse = torch.linalg.solve_triangular(lower, identities, upper=False)
    weights_to_coarse = [-inverse.bmm(factor) for factor in factors]
    return [*weights_to_coarse, inverse], info


def whiten(centred: list[Tensor], whitening: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Whitened values (cells, channels, B) of each level: the recursion that `factorise` describes."""
    weights = split_blocks(whitening, levels)
    white: list[Tensor] = []
    for level, values in enumerate(centred):
        own = product(weights[level, level], values)
        for j, coarse in enumerate(white):
            weight = grouped(weights[level, j], len(coarse))
            add_product(own, weight, coarse)
        white.append(own)
    return white


def product(weight: Tensor, values: Tensor) -> Tensor:
    """Return weight @ values, batched over cells: (n, r, c) and (n, c, B) give (n, r, B)."""
    cells, rows, columns = weight.shape
    if values.shape[2] > 1:
        return weight.bmm(values)
    row_vectors = values.view(cells, 1, columns)
    products = row_vectors.bmm(weight.mT)  # three times as fast on the CPU
    return products.view(cells, rows, 1)


def add_product(total: Tensor, weight: Tensor, values: Tensor) -> None:
    """Add weight (n, r, c) @ values (n, c, B) to total (n k, r / k, B), whose cells are grouped by those of values."""
    cells, rows, columns = weight.shape
    images = values.shape[2]
    if images > 1:
        by_cell = total.view(cells, rows, images)
        by_cell.baddbmm_(weight, values)
    else:  # `.mT` of a column would have strides that are slow
        row_vectors = values.view(cells, 1, columns)
        total_rows = total.view(cells, 1, rows)
        total_rows.baddbmm_(row_vectors, weight.mT)


def factorisation_error(levels: Sequence[Level], level: int, cell: int, eps: float) -> ValueError:
    """Say where a covariance is not positive definite, and what to do."""
    row, column = position(levels, level, cell)
    grid = levels[level]
    return ValueError(
        f"expected positive definite covariances, but that at row {row}, column {column} of the {grid.rows} x "
        f"{grid.columns} grid is not: choose eps above {eps}, fit on more images, or look for non-finite features"
    )
