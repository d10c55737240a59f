"""Nested streaming Gaussians: one per position of the finest of several grids, without ever upsampling a grid.

The Gaussian at fine position p is that of the vector [f_0(p_0), f_1(p_1), ..., f_L(p)], p_l being p's ancestor on
grid l. All fine positions below p_l share the marginal of its first l blocks, so the chain rule
d^2(p) = d^2[f_0](p_0) + d^2[f_1 | f_0](p_1) + ... gives each term at the resolution of its own grid. State is kept in
tree order (see `tree.py`), which makes every grouping a free view and every step a handful of batched products.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.distributed
from torch import Tensor

from detectors.late_buffers import LateBuffers
from detectors.padim.moments import add_products, centre_on_mean
from detectors.padim.tree import Level, check_nested, mean_size, moments_size, split_columns, split_mean
from detectors.padim.whitening import factorise, whiten

STATE = ("layout", "count", "mean", "moments", "whitening")


class NestedGaussian(LateBuffers):
    """Gaussians at every position of nested grids, updated batch by batch, with Mahalanobis distances.

    Values come in tree order, level by level, coarse to fine; each grid is a whole multiple of the one before it.
    Memory does not depend on the number of samples. Buffers keep their precision under `.half()`.

    Args:
        eps: Added to the diagonal of each covariance.

    Raises:
        ValueError: If eps is negative.

    Example:
        >>> gaussian = NestedGaussian(eps=0.01)
        >>> gaussian.start([Level(rows=2, columns=2, channels=3), Level(rows=4, columns=4, channels=2)])
        >>> values = torch.rand(2 * 2 * 3 + 4 * 4 * 2, 8)
        >>> gaussian.update(values).finalize().squared_distance(values).shape
        torch.Size([16, 8])
    """

    layout: Tensor | None  # (L, 3) rows, columns, channels of each level
    count: Tensor | None  # samples seen, float64
    mean: Tensor | None  # flat float64: (cells, channels) of each level
    moments: Tensor | None  # flat float32: (cells_l, channels_l, channels_j) for each l and each j <= l
    whitening: Tensor | None  # same layout: what `factorise` returns
    high: Tensor | None  # column: the mean as the sum of two float32 parts
    low: Tensor | None

    def __init__(self, eps: float = 0.01) -> None:
        super().__init__()
        if not 0 <= eps < math.inf:
            raise ValueError(f"expected a finite eps >= 0, got {eps}: .01 is usual")
        self.eps = eps
        self.levels: list[Level] = []
        for name in STATE:
            self.register_late_buffer(name)
        for name in ("high", "low"):
            self.register_buffer(name, None, persistent=False)

    def start(self, levels: Sequence[Level], device: torch.device | str = "cpu") -> None:
        """Forget all samples and set the grids, coarse to fine."""
        check_nested(levels)
        self.levels = list(levels)
        self.layout = torch.tensor(self.levels, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(mean_size(self.levels), dtype=torch.float64, device=device)
        self.moments = torch.zeros(moments_size(self.levels), device=device)
        self.whitening = None

    def clear(self) -> None:
        """Forget samples and grids."""
        self.levels = []
        for name in STATE:
            setattr(self, name, None)

    @torch.no_grad()
    def update(self, values: Tensor) -> Self:
        """Take in samples: values (all levels' cells' channels, B) in tree order (Chan's update, centred per batch)."""
        count, mean, moments = self.statistics()
        self.check_values(values)
        batch = values.shape[1]
        share = batch / (count + batch)  # of the new samples among all
        weight = (count * share).sqrt()  # of the shift of the mean in the moments
        trees = split_columns(values, self.levels)
        means = split_mean(mean, self.levels)
        columns = []
        for tree, old in zip(trees, means, strict=True):
            # The shift of the mean makes one more column: the products of all columns are the update of the moments.
            block = torch.empty(*old.shape, batch + 1, device=mean.device)  # (cells, channels, B + 1)
            new = centre_on_mean(tree, out=block[..., :batch])
            shift = new - old
            block[..., batch] = shift * weight
            old += shift * share
            columns.append(block)
        add_products(moments, columns, self.levels)
        count += batch
        self.whitening = None
        return self

    @torch.no_grad()
    def merge(self, other: "NestedGaussian") -> Self:
        """Take in all samples of another Gaussian on the same grids."""
        if other.levels != self.levels:
            raise ValueError(f"expected a Gaussian on the same grids {self.levels}, got one on {other.levels}")
        count, mean, moments = self.statistics()
        new_count, new_mean, new_moments = (tensor.to(mean.device) for tensor in other.statistics())
        together = count + new_count
        share = new_count / together.clamp(min=1)
        weight = (count * share).sqrt()
        shift = new_mean - mean
        moments += new_moments
        add_products(moments, self.as_columns(shift * weight), self.levels)
        mean += shift * share
        count += new_count
        self.whitening = None
        return self

    @torch.no_grad()
    def all_reduce(self) -> Self:
        """Join the samples of all processes of the default group; all of them end with the same state."""
        count, mean, moments = self.statistics()
        own_count = count.clone()
        own_mean = mean.clone()
        torch.distributed.all_reduce(count)
        mean *= own_count / count
        torch.distributed.all_reduce(mean)
        # The own moments are about the own mean: the shift to that of all adds its products.
        shift = own_mean - mean
        weight = own_count.sqrt()
        add_products(moments, self.as_columns(shift * weight), self.levels)
        torch.distributed.all_reduce(moments)
        self.whitening = None
        return self

    @torch.no_grad()
    def finalize(self) -> Self:
        """Factorise the covariances, divisor N - 1, in float64; `squared_distance` works from then on.

        Raises:
            ValueError: If fewer than two samples were seen, or a covariance is not positive definite.
        """
        count, _, moments = self.statistics()
        if count < 2:
            raise ValueError(f"expected at least 2 samples for a covariance, got {int(count)}: fit on more images")
        self.whitening = factorise(moments, float(count), self.eps, self.levels)
        self.split_precision()
        return self

    def split_precision(self) -> None:
        """Derive from the mean its two float32 parts: centring in two steps is as exact as in float64."""
        assert self.mean is not None
        column = self.mean[:, None]
        self.high = column.float()
        self.low = (column - self.high).float()

    def squared_distance(self, values: Tensor) -> Tensor:
        """Return squared Mahalanobis distances (cells of the finest grid, B), in tree order.

        Float32 throughout, with whitening weights from a float64 factorisation: within 1e-5 (relative) of float64 at a
        condition number of the covariances of 1e2, 5e-4 at 1e4 and 5e-2 at 1e6, wherever the mean lies.

        Args:
            values: (all levels' cells' channels, B) in tree order, float32.
        """
        self.check_values(values)
        assert self.whitening is not None
        assert self.high is not None
        assert self.low is not None
        centred = (values - self.high).sub_(self.low)
        by_level = split_columns(centred, self.levels)
        total = None
        for white in whiten(by_level, self.whitening, self.levels):
            own = white.square().sum(1)  # (cells, B)
            if total is not None:
                # The chain rule: each cell adds its own term to that of its ancestor.
                parents, images = total.shape
                families = own.view(parents, -1, images)  # (parents, children, B)
                own = families + total[:, None]
                own = own.view(-1, images)
            total = own
        assert total is not None
        return total

    def check_values(self, values: Tensor) -> None:
        """Refuse values that do not lie on the levels' grids."""
        expected = mean_size(self.levels)
        if values.ndim != 2 or len(values) != expected:
            raise ValueError(f"expected {expected} values per sample on {self.levels}, got {tuple(values.shape)}")

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and moments; raises where there are none yet."""
        if self.count is None or self.mean is None or self.moments is None:
            raise ValueError("expected a Gaussian that has seen samples, got an empty one: call start, then update")
        return self.count, self.mean, self.moments

    def as_columns(self, flat: Tensor) -> list[Tensor]:
        """A flat vector laid out as the mean, as float32 columns (cells, channels, 1) of each level."""
        parts = split_mean(flat.float(), self.levels)
        return [part[..., None] for part in parts]

    def after_load(self) -> None:
        """Restore the levels; refuse a state whose sizes do not fit them."""
        rows = [] if self.layout is None else self.layout.tolist()
        self.levels = [Level(*row) for row in rows]
        check_state(self)
        if self.whitening is not None:
            self.split_precision()


def check_state(gaussian: NestedGaussian) -> None:
    """Refuse a loaded state whose parts do not belong together."""
    levels = gaussian.levels
    empty = [level for level in levels if min(level.rows, level.columns) < 1]
    if empty or any(level.channels < 0 for level in levels):
        raise ValueError(f"expected grids with at least one row and column in the state, got {levels}")
    blocks = (moments_size(levels),)
    expected = {"count": (), "mean": (mean_size(levels),), "moments": blocks, "whitening": blocks}
    for name, shape in expected.items():
        tensor = getattr(gaussian, name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            got = tuple(tensor.shape)
            raise ValueError(f"expected {name} of shape {shape} for {levels} in the state, got {got}")
        if not tensor.isfinite().all():
            raise ValueError(f"expected finite numbers as {name} in the state, got NaN or infinite ones")
    if gaussian.whitening is not None and gaussian.mean is None:
        raise ValueError("expected the mean beside the whitening in the state, got none")
    check_nested(levels)
