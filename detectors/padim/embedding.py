"""From a backbone's maps to patch embeddings in tree order, and from distances in tree order to anomaly maps.

The embedding at a position of the finest map holds the kept channels of all maps, coarser ones repeated by nearest
neighbour. Maps of one grid make one level; nothing is ever repeated where the grids nest (see `tree.py`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.inputs import Shape
from detectors.late_buffers import LateBuffers
from detectors.padim.grids import Grids, Size, choose_grids, source_index, target_index
from detectors.padim.heatmap import resize_and_blur_matrix
from detectors.padim.tree import Level


class PatchEmbedding(LateBuffers):
    """The one owner of channels, grids and layout.

    Args:
        num_features: Channels kept; None keeps all.
        nested: See `PaDiM`.
        blur_sigma: Standard deviation of the maps' blur in image pixels.
        channels: Channels to keep (d,) instead of a random subset.
        generator: Draws the number from which the subset follows; None takes torch's global one.
    """

    channels: Tensor | None  # (d,) kept ones, ascending, counted through all maps
    map_shapes: Tensor | None  # (maps, 3): channels, rows, columns of each map
    own_channels: Tensor | None  # (d,) kept ones, counted from the first one of their map
    source_index: Tensor | None  # (values of all levels,) where in the kept channels, side by side, each value is
    target_index: Tensor | None  # (h * w,) where in tree order each position of the finest map is
    rows: Tensor | None  # (H, h) resize and blur
    columns: Tensor | None  # (W, w)

    def __init__(
        self,
        num_features: int | None,
        nested: bool | None,
        blur_sigma: float,
        channels: Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        _check_options(num_features, blur_sigma, channels)
        self.num_features = num_features
        self.nested = nested
        self.blur_sigma = blur_sigma
        self.given_channels = channels
        # The number of channels shows at the first image; a number drawn now keeps the subset the same in every copy.
        device = "cpu" if generator is None else generator.device
        self.channel_seed = int(torch.randint(2**62, (), generator=generator, device=device))
        self.levels: list[Level] = []
        self._shapes: list[Shape] = []
        self._counts: list[int] = []  # kept channels of each map
        self._grids = Grids([], [], (0, 0), upsample=False)
        for name in ("channels", "map_shapes"):
            self.register_late_buffer(name)
        for name in ("own_channels", "source_index", "target_index", "rows", "columns"):
            self.register_buffer(name, None, persistent=False)

    def initialise(self, map_shapes: Sequence[Shape], image_size: Size) -> None:
        """Choose channels and grids for maps (C, rows, columns) of images (rows, columns)."""
        total = sum(channels for channels, _, _ in map_shapes)
        if self.given_channels is None:
            channels = draw_channels(total, self.num_features, self.channel_seed)
        else:
            channels = check_channels(self.given_channels, total)
        device = self.device_marker.device
        self.channels = channels.to(device)
        self.map_shapes = torch.tensor(map_shapes, device=device)
        self.choose_levels()
        self.prepare(image_size)

    def choose_levels(self) -> list[Level]:
        """Derive the levels from channels and shapes.

        Raises:
            ValueError: If there are no such channels.
        """
        assert self.channels is not None
        assert self.map_shapes is not None
        self._shapes = [(channels, rows, columns) for channels, rows, columns in self.map_shapes.tolist()]
        per_map = split_channels(self.channels.cpu(), self._shapes)
        self.own_channels = torch.cat(per_map).to(self.channels.device)
        self._counts = [len(kept) for kept in per_map]
        self._grids = choose_grids([(rows, columns) for _, rows, columns in self._shapes], self.nested)
        self.levels = []
        for group, size in zip(self._grids.groups, self._grids.sizes, strict=True):
            count = sum(self._counts[number] for number in group)
            self.levels.append(Level(*size, count))
        return self.levels

    def prepare(self, image_size: Size) -> None:
        """Compute all that predictions need and only the levels decide."""
        sizes = [(rows, columns) for _, rows, columns in self._shapes]
        finest = self._grids.finest
        device = self.device_marker.device
        self.source_index = source_index(sizes, self._counts, self._grids, self.levels).to(device)
        self.target_index = target_index(self.levels, finest).to(device)
        self.rows = resize_and_blur_matrix(finest[0], image_size[0], self.blur_sigma).float().to(device)
        self.columns = resize_and_blur_matrix(finest[1], image_size[1], self.blur_sigma).float().to(device)

    def clear(self) -> None:
        """Forget channels and grids; the next ones are drawn from the same number."""
        self.channels = self.map_shapes = None
        self.after_load()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Bring maps (B, C, rows, columns) to float32 values (values of all levels, B) in tree order.

        Raises:
            ValueError: If the maps are not of the shapes seen in fit.
        """
        got = [tuple(one.shape[1:]) for one in maps]
        if got != self._shapes:
            raise ValueError(
                f"expected maps (C, rows, columns) = {self._shapes} from the backbone as in fit, got {got}"
            )
        assert self.source_index is not None
        assert self.own_channels is not None
        selected = []
        for one, own in zip(maps, torch.split(self.own_channels, self._counts), strict=True):
            selected.append(one.index_select(1, own).flatten(1))
        # Repeating, padding and ordering only copy: one index does them at once.
        side_by_side = torch.cat(selected, 1)  # (B, values of all kept channels)
        return side_by_side.index_select(1, self.source_index).t().float().contiguous()

    def positions(self, tree: Tensor) -> Tensor:
        """Bring what belongs to the cells of the finest grid (cells, B) to (B, h, w)."""
        assert self.target_index is not None
        return tree.index_select(0, self.target_index).t().reshape(-1, *self._grids.finest)

    def anomaly_map(self, distance: Tensor) -> Tensor:
        """Bring distances (cells, B) in tree order to maps (B, 1, H, W), resized and blurred."""
        assert self.rows is not None
        assert self.columns is not None
        return (self.rows @ self.positions(distance) @ self.columns.mT)[:, None]

    def after_load(self) -> None:
        """Drop what derived from earlier channels and grids; `prepare` derives it anew."""
        self.levels = []
        self._shapes = []
        self.own_channels = self.source_index = self.target_index = self.rows = self.columns = None


def draw_channels(total: int, count: int | None, seed: int) -> Tensor:
    """A random subset of channels, ascending."""
    if count is None:
        return torch.arange(total)
    if count > total:
        raise ValueError(f"expected num_features <= {total}, the backbone's channels, got {count}: None keeps all")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:count].sort().values


def check_channels(channels: Tensor, total: int) -> Tensor:
    """Given channels, ascending; refuses repeated ones and those that do not exist."""
    ascending = sorted(set(channels.tolist()))
    if len(ascending) != len(channels) or ascending[0] < 0 or ascending[-1] >= total:
        raise ValueError(f"expected distinct channels in [0, {total}), got {channels.tolist()}")
    return torch.tensor(ascending)


def split_channels(channels: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The kept channels of each map, counted from its first one."""
    total = sum(count for count, _, _ in shapes)
    if not 0 <= int(channels.min()) <= int(channels.max()) < total:
        raise ValueError(f"expected channels in [0, {total}) in the state, got {channels.tolist()}")
    parts = []
    first = 0
    for count, _, _ in shapes:
        inside = (channels >= first) & (channels < first + count)
        parts.append(channels[inside] - first)
        first += count
    return parts


def _check_options(num_features: int | None, blur_sigma: float, channels: Tensor | None) -> None:
    """Refuse options out of range."""
    if num_features is not None and (not isinstance(num_features, int) or num_features < 1):
        raise ValueError(f"expected a whole number num_features >= 1, or None for all, got {num_features!r}")
    if not 0 <= blur_sigma < math.inf:
        raise ValueError(f"expected blur_sigma >= 0, got {blur_sigma}: 0 leaves the blur out")
    if channels is None:
        return
    if not isinstance(channels, Tensor):
        raise TypeError(f"expected channels as a tensor, got {type(channels).__name__}: torch.tensor([...])")
    if channels.dtype not in (torch.int32, torch.int64) or channels.ndim != 1 or len(channels) == 0:
        raise ValueError(f"expected channels as a vector of integers, got {channels.dtype}, {tuple(channels.shape)}")
