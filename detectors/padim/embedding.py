"""From a backbone's maps to patch embeddings in tree order, and from distances in tree order to anomaly maps.

The embedding at a position of the finest map holds the kept channels of all maps, coarser ones repeated by nearest
neighbour. Maps of one grid make one level; nothing is ever repeated where the grids nest (see `tree.py`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.inputs import Shape, shape_of
from detectors.late_buffers import LateBuffers
from detectors.padim.grids import Grids, Size, choose_grids, source_index, target_index
from detectors.padim.heatmap import resize_and_blur_matrix
from detectors.padim.tree import Level

DERIVED = ("own_channels", "source_index", "target_index", "rows", "columns")  # buffers that no state holds


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
        seed = torch.randint(2**62, (), generator=generator, device=device)
        self.channel_seed = int(seed)
        self.levels: list[Level] = []
        self._shapes: list[Shape] = []
        self._counts: list[int] = []  # kept channels of each map
        self._grids = Grids([], [], (0, 0), upsample=False)
        for name in ("channels", "map_shapes"):
            self.register_late_buffer(name)
        for name in DERIVED:
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
        own_channels = torch.cat(per_map)
        self.own_channels = own_channels.to(self.channels.device)
        self._counts = [len(kept) for kept in per_map]
        self._grids = choose_grids(self._sizes, self.nested)
        self.levels = []
        for group, size in zip(self._grids.groups, self._grids.sizes, strict=True):
            rows, columns = size
            count = sum(self._counts[number] for number in group)
            self.levels.append(Level(rows, columns, count))
        return self.levels

    def prepare(self, image_size: Size) -> None:
        """Compute all that predictions need and only the levels decide."""
        device = self.device_marker.device
        source = source_index(self._sizes, self._counts, self._grids, self.levels)
        target = target_index(self.levels, self._grids.finest)
        self.source_index = source.to(device)
        self.target_index = target.to(device)
        # Rows and columns of a map are resized and blurred apart, each by one matrix.
        resizes = []
        for cells, pixels in zip(self._grids.finest, image_size, strict=True):
            matrix = resize_and_blur_matrix(cells, pixels, self.blur_sigma)
            resizes.append(matrix.float().to(device))
        self.rows, self.columns = resizes

    @property
    def _sizes(self) -> list[Size]:
        """Rows and columns of each map."""
        return [(rows, columns) for _, rows, columns in self._shapes]

    def clear(self) -> None:
        """Forget channels and grids; the next ones are drawn from the same number."""
        self.channels = None
        self.map_shapes = None
        self.after_load()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Bring maps (B, C, rows, columns) to float32 values (values of all levels, B) in tree order.

        Raises:
            ValueError: If the maps are not of the shapes seen in fit.
        """
        got = [shape_of(one) for one in maps]
        if got != self._shapes:
            raise ValueError(
                f"expected maps (C, rows, columns) = {self._shapes} from the backbone as in fit, got {got}"
            )
        assert self.source_index is not None
        assert self.own_channels is not None
        own_channels = torch.split(self.own_channels, self._counts)
        selected = []
        for one, own in zip(maps, own_channels, strict=True):
            kept = select_channels(one, own)
            selected.append(kept.flatten(1))
        # Repeating, padding and ordering only copy: one index does them at once.
        side_by_side = torch.cat(selected, 1)  # (B, values of all kept channels)
        in_tree_order = side_by_side.index_select(1, self.source_index)  # (B, values of all levels)
        return in_tree_order.t().float().contiguous()

    def positions(self, tree: Tensor) -> Tensor:
        """Bring what belongs to the cells of the finest grid (cells, B) to (B, h, w)."""
        assert self.target_index is not None
        row_by_row = tree.index_select(0, self.target_index)  # (h w, B)
        return row_by_row.t().reshape(-1, *self._grids.finest)

    def anomaly_map(self, distance: Tensor) -> Tensor:
        """Bring distances (cells, B) in tree order to maps (B, 1, H, W), resized and blurred."""
        assert self.rows is not None
        assert self.columns is not None
        grid = self.positions(distance)  # (B, h, w)
        resized = self.rows @ grid @ self.columns.mT  # (B, H, W)
        return resized[:, None]

    def after_load(self) -> None:
        """Drop what derived from earlier channels and grids; `prepare` derives it anew."""
        self.levels = []
        self._shapes = []
        for name in DERIVED:
            setattr(self, name, None)


def select_channels(maps: Tensor, channels: Tensor) -> Tensor:
    """Some channels of maps (B, C, rows, columns), read in the order in which they lie in memory."""
    if maps.is_contiguous():
        return maps.index_select(1, channels)
    # Channels_last maps lie in memory pixel by pixel.
    channels_last = maps.permute(0, 2, 3, 1)
    batch, rows, columns, _ = channels_last.shape
    pixels = channels_last.flatten(0, 2)  # (B rows columns, C)
    kept = pixels.index_select(1, channels)
    kept = kept.view(batch, rows, columns, -1)
    return kept.permute(0, 3, 1, 2)


def draw_channels(total: int, count: int | None, seed: int) -> Tensor:
    """A random subset of channels, ascending."""
    if count is None:
        return torch.arange(total)
    if count > total:
        raise ValueError(f"expected num_features <= {total}, the backbone's channels, got {count}: None keeps all")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(total, generator=generator)
    return shuffled[:count].sort().values


def check_channels(channels: Tensor, total: int) -> Tensor:
    """Given channels, ascending; refuses repeated ones and those that do not exist."""
    ascending = sorted(set(channels.tolist()))
    is_distinct = len(ascending) == len(channels)
    if not is_distinct or ascending[0] < 0 or ascending[-1] >= total:
        raise ValueError(f"expected distinct channels in [0, {total}), got {channels.tolist()}")
    return torch.tensor(ascending)


def split_channels(channels: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The kept channels of each map, counted from its first one."""
    total = sum(count for count, _, _ in shapes)
    lowest = int(channels.min())
    highest = int(channels.max())
    if not 0 <= lowest <= highest < total:
        raise ValueError(f"expected channels in [0, {total}) in the state, got {channels.tolist()}")
    parts = []
    first = 0
    for count, _, _ in shapes:
        end = first + count
        inside = (channels >= first) & (channels < end)
        parts.append(channels[inside] - first)
        first = end
    return parts


def _check_options(num_features: int | None, blur_sigma: float, channels: Tensor | None) -> None:
    """Refuse options out of range."""
    if num_features is not None:
        is_whole = isinstance(num_features, int)
        if not is_whole or num_features < 1:
            raise ValueError(f"expected a whole number num_features >= 1, or None for all, got {num_features!r}")
    if not 0 <= blur_sigma < math.inf:
        raise ValueError(f"expected blur_sigma >= 0, got {blur_sigma}: 0 leaves the blur out")
    if channels is None:
        return
    if not isinstance(channels, Tensor):
        raise TypeError(f"expected channels as a tensor, got {type(channels).__name__}: torch.tensor([...])")
    is_integer = channels.dtype in (torch.int32, torch.int64)
    if not is_integer or channels.ndim != 1 or len(channels) == 0:
        raise ValueError(f"expected channels as a vector of integers, got {channels.dtype}, {tuple(channels.shape)}")
