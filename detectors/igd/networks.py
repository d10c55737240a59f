"""Decoder and critic of IGD for square images of any side that is a multiple of 32.

Doubling and halving are fused with the convolution beside them: "nearest x2, then 3 x 3" is one transposed 4 x 4
convolution of stride 2, and "3 x 3, then 2 x 2 mean" one 4 x 4 convolution of stride 2. Same numbers, 4/9 of the work.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_GRID = 4  # side of the decoder's first map, at least
MOST_DOUBLINGS = 7  # those of 512 px


class Decoder(nn.Module):
    """g_phi of the paper: codes to images.

    Linear to 512 channels on a grid of 4 x 4 (7 x 7 at 224 px), doubled until it has the images' side. 32 px: residual
    up-blocks of 256, 128, 64 channels and a 3 x 3 convolution (the local network). Larger: up + 3 x 3 to 512, residual
    up-blocks (at 256 px 512, 256, 128, 64; the last of these for smaller images), up + 5 x 5 to the image. The output
    is linear.

    Args:
        image_size: Side of the images in pixels, a multiple of 32.
        channels: Channels of the images.
        code_dim: Components of a code.
        width: Factor on the number of inner channels.
    """

    def __init__(
        self,
        image_size: int,
        channels: int = 3,
        code_dim: int = 128,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        widths = [scaled(w, width) for w in block_widths(image_size)]
        top = widths[0]
        bottom = widths[-1]
        enlarged = 2 ** doublings(image_size)
        self.grid = image_size // enlarged
        cells = self.grid * self.grid
        self.linear = nn.Linear(code_dim, top * cells)
        blocks: list[nn.Module] = []
        if image_size == 32:
            last: nn.Module = nn.Conv2d(bottom, channels, 3, padding=1)
        else:
            blocks = [UpConv2d(top, top, 3)]
            last = UpConv2d(bottom, channels, 5)
        blocks += [UpBlock(a, b) for a, b in pairwise(widths)]
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(bottom), nn.ReLU(inplace=True), last)

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (B, code_dim) to images (B, channels, image_size, image_size)."""
        values = self.linear(codes)
        grid = values.unflatten(1, (-1, self.grid, self.grid))  # (B, top, grid, grid)
        if not self.training:
            grid = grid.contiguous(memory_format=torch.channels_last)  # measured: a third faster, but gradients slower
        images: Tensor = self.blocks(grid)
        return images.contiguous()


class Critic(nn.Module):
    """d of the adversarial interpolation: how much of another image is mixed in, one number per sample.

    The decoder mirrored, then a mean over places and one linear unit. Its norm is per sample (layer norm), so that no
    sample's value depends on the batch.

    Args:
        image_size: Side of the images in pixels, a multiple of 32.
        channels: Channels of the images.
        width: Factor on the number of inner channels.
    """

    def __init__(self, image_size: int, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        widths = [scaled(w, width) for w in block_widths(image_size)]
        widths.reverse()
        bottom = widths[0]
        top = widths[-1]
        if image_size == 32:
            first: nn.Module = nn.Conv2d(channels, bottom, 3, padding=1)
        else:
            first = DownConv2d(channels, bottom, 5)
        blocks: list[nn.Module] = [first]
        blocks += [DownBlock(a, b) for a, b in pairwise(widths)]
        if image_size != 32:
            blocks += [sample_norm(top), nn.ReLU(inplace=True), DownConv2d(top, top, 3)]
        self.blocks = nn.Sequential(*blocks, sample_norm(top), nn.ReLU(inplace=True))
        self.linear = nn.Linear(top, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, channels, image_size, image_size) to estimates (B,)."""
        pooled = self.blocks(images).mean((2, 3))  # (B, top)
        estimates: Tensor = self.linear(pooled)
        return estimates.squeeze(1)


class UpBlock(nn.Module):
    """Residual block that doubles the side: norm, ReLU, up, conv, norm, ReLU, conv; skip: up, 1 x 1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            UpConv2d(channels, out_channels, 3, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_channels, 2H, 2W)."""
        small_skip = self.skip(x)  # 1 x 1 and up commute
        skip = F.interpolate(small_skip, scale_factor=2.0, mode="nearest")
        main: Tensor = self.main(x)
        return main.add_(skip)


class DownBlock(nn.Module):
    """Residual block that halves the side: norm, ReLU, conv, norm, ReLU, conv, mean pool; skip: pool, 1 x 1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            sample_norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            sample_norm(channels),
            nn.ReLU(inplace=True),
            DownConv2d(channels, out_channels, 3),
        )
        self.skip = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        main: Tensor = self.main(x)
        pooled = F.avg_pool2d(x, 2)  # pool and 1 x 1 commute
        skip: Tensor = self.skip(pooled)
        return main + skip


class UpConv2d(nn.Conv2d):
    """Nearest x2 followed by a zero-padded convolution of odd kernel, as one transposed convolution."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_channels, 2H, 2W)."""
        turned = self.weight.flip(2, 3)
        summed = summed_in_pairs(turned)
        kernel = summed.transpose(0, 1)  # (channels, out_channels, k + 1, k + 1)
        padding = self.kernel_size[0] // 2
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=padding)


class DownConv2d(nn.Conv2d):
    """A zero-padded convolution of odd kernel followed by a 2 x 2 mean pool, as one convolution of stride 2."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        kernel = summed_in_pairs(self.weight) / 4
        padding = self.kernel_size[0] // 2
        return F.conv2d(x, kernel, self.bias, stride=2, padding=padding)


def summed_in_pairs(kernel: Tensor) -> Tensor:
    """Sum of the kernel and its three shifts by one pixel: (..., k, k) -> (..., k + 1, k + 1)."""
    below = F.pad(kernel, (0, 0, 1, 0))
    above = F.pad(kernel, (0, 0, 0, 1))
    rows = below + above
    right = F.pad(rows, (1, 0))
    left = F.pad(rows, (0, 1))
    return right + left


def sample_norm(channels: int) -> nn.GroupNorm:
    """Layer norm over channels and places of one sample."""
    return nn.GroupNorm(1, channels)


def scaled(channels: int, width: float) -> int:
    """Channels times the width factor, at least 1."""
    return max(1, round(channels * width))


def doublings(image_size: int) -> int:
    """How often the decoder doubles its first map: as often as leaves it at least 4 pixels a side.

    Raises:
        ValueError: If the size is not a multiple of 32.

    Example:
        >>> [(size, size // 2 ** doublings(size)) for size in (32, 224, 256)]
        [(32, 4), (224, 7), (256, 4)]
    """
    if image_size < 32 or image_size % 32 != 0:
        raise ValueError(f"expected an image size that is a multiple of 32, got {image_size}: resize the images")
    count = 3
    while count < MOST_DOUBLINGS:
        grid, rest = divmod(image_size, 2 ** (count + 1))
        if rest > 0 or grid < SMALLEST_GRID:
            break
        count += 1
    return count


def block_widths(image_size: int) -> list[int]:
    """Channels before, between and after the decoder's residual blocks; each block doubles the side."""
    if image_size == 32:
        return [512, 256, 128, 64]
    blocks = doublings(image_size) - 2  # the first and the last doubling are no blocks
    widths = [512, 512, 256, 128, 64]
    return [512, *widths[-blocks:]]


def frozen_call(module: nn.Module, x: Tensor) -> Tensor:
    """module(x) with gradients to x only: nothing reaches the module's parameters."""
    named = module.named_parameters()
    state = {name: parameter.detach() for name, parameter in named}
    return torch.func.functional_call(module, state, (x,))  # type: ignore[no-any-return]
