"""Pairs of neighbouring patches and their relative position, for the positional loss (equation 9)."""

import torch
from torch import Tensor, nn

from medmix._checks import check_images
from medmix._random import drawing_device, small_tensor
from medmix.lesions.windows import cut, window_starts


class NeighbourPatches(nn.Module):
    """Cut a random patch and one of its eight neighbours from each image, for equation (9).

    The second patch lies 3K/4 to K pixels away along each axis on which its position differs. The pair is placed so
    that both fit: nothing is clipped, so every label is right.

    Args:
        patch_size: Side K of a patch in pixels; the images need a shorter side of at least 2 K - 1.

    Example:
        >>> first, second, position = NeighbourPatches(16)(torch.rand(4, 3, 64, 64))
        >>> first.shape, position.shape
        (torch.Size([4, 3, 16, 16]), torch.Size([4]))
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        if not isinstance(patch_size, int) or patch_size < 2:
            raise ValueError(f"expected a patch size of at least 2 whole pixels, got {patch_size!r}")
        self.patch_size = patch_size

    def forward(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cut the pairs.

        Args:
            images: (B, C, H, W) in [0, 1].
            generator: Source of randomness; None is torch's global one.

        Returns:
            First and second patches (B, C, K, K), and the position (B,) int64 of the second in 0..7: the cells of a
            3 x 3 grid around the first, row by row, the centre skipped.

        Raises:
            ValueError: If the images are too small for two patches.
        """
        check_images(images)
        side = self.patch_size
        batch, _, height, width = images.shape
        reach = 3 * side // 4 + max(side // 4, 1) - 1  # the furthest that a neighbour starts
        if min(height, width) < side + reach:
            raise ValueError(
                f"expected images of at least {side + reach} x {side + reach} pixels for patches of {side}, got "
                f"{height} x {width}: use a smaller patch_size"
            )
        drawn_on = drawing_device(generator, images.device)
        u = torch.rand((batch, 5), generator=generator, device=drawn_on).to(images.device)
        position = (u[:, 0] * 8).long()
        offset = _neighbour_offset(position, u[:, 1:3], side)
        # the first patch goes where the second fits, too
        freedom = small_tensor((height - side, width - side), offset) - offset.abs()
        corner = (-offset).clamp(min=0) + (u[:, 3:] * (freedom + 1)).long()
        image = torch.arange(batch, device=images.device)
        source = images.contiguous()
        first = cut(source, window_starts(corner, image, source.shape), side)
        second = cut(source, window_starts(corner + offset, image, source.shape), side)
        return first, second, position

    def extra_repr(self) -> str:
        """The patch size, for `repr`."""
        return f"patch_size={self.patch_size}"


def _neighbour_offset(
    position: Tensor,
    uniform: Tensor,
    side: int,
) -> Tensor:
    """Rows and columns from the first to the second patch: position (B,), uniform (B, 2) -> (B, 2) int64."""
    cell = position + (position >= 4)  # 0..8, the centre skipped
    row = cell // 3 - 1
    column = cell % 3 - 1
    direction = torch.stack([row, column], dim=1)
    distance = 3 * side // 4 + (uniform * max(side // 4, 1)).long()
    return direction * distance
