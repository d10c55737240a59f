"""What a prediction needs and shapes alone decide: where each value comes from and goes to, and the matrices."""

from collections.abc import Sequence

from torch import Tensor

from detectors.late_buffers import LateBuffers
from detectors.padim.grids import GridPlan, Size
from detectors.padim.heatmap import resize_and_blur_matrix


class MapLayout(LateBuffers):
    """From a backbone's maps to values in tree order, from distances in tree order to anomaly maps.

    Its buffers follow from the plan, so that no state_dict holds them.
    """

    sources: Tensor | None  # (values of all levels,) see `GridPlan.tree_sources`
    places: Tensor | None  # (h * w,) see `GridPlan.tree_places`
    rows: Tensor | None  # (H, h) resize and blur
    columns: Tensor | None  # (W, w)

    def __init__(self) -> None:
        super().__init__()
        for name in ("sources", "places", "rows", "columns"):
            self.register_buffer(name, None, persistent=False)

    def clear(self) -> None:
        """Forget everything."""
        self.sources = self.places = self.rows = self.columns = None

    def prepare(self, plan: GridPlan, channels: Tensor, image_size: Size, blur_sigma: float) -> None:
        """Compute the buffers, on the device of the channels."""
        device = channels.device
        self.sources = plan.tree_sources(channels).to(device)
        self.places = plan.tree_places().to(device)
        self.rows, self.columns = (
            resize_and_blur_matrix(size, out_size, blur_sigma).float().to(device)
            for size, out_size in zip(plan.size, image_size, strict=True)
        )

    def values(self, plan: GridPlan, maps: Sequence[Tensor]) -> Tensor:
        """Bring maps (B, C, rows, columns) to float32 values (values of all levels, B) in tree order."""
        assert self.sources is not None
        return plan.flatten(maps).index_select(1, self.sources).t().float().contiguous()

    def positions(self, plan: GridPlan, tree: Tensor) -> Tensor:
        """Bring what belongs to the cells of the finest grid (cells, B) to (B, h, w)."""
        assert self.places is not None
        return tree.index_select(0, self.places).t().reshape(-1, *plan.size)

    def enlarge(self, distance: Tensor) -> Tensor:
        """Resize and blur distances (B, h, w) to maps (B, 1, H, W)."""
        assert self.rows is not None
        assert self.columns is not None
        return (self.rows @ distance @ self.columns.mT)[:, None]
