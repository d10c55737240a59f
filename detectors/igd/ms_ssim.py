"""Multi-scale structural similarity (MS-SSIM) of Wang et al. 2003, for any window and number of scales.

A scale's similarity is luminance x contrast-structure; MS-SSIM takes contrast-structure from every scale and
luminance from the coarsest one. Local means come from a Gaussian window without padding, as in the original.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.igd.windows import gaussian_window, window_means

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    window_size: int = 11,
    sigma: float = 1.5,
    weights: Sequence[float] = WEIGHTS,
    k: tuple[float, float] = (0.01, 0.03),
) -> Tensor:
    """Return the MS-SSIM of each image pair, averaged over channels (m in eq. 11).

    A scale whose mean contrast-structure is not positive makes the channel's value 0, with a zero gradient.
    An odd side loses its last row or column when it is halved, as in torchmetrics. So the values are
    - pytorch-msssim's where sides are multiples of 2 ** (scales - 1), as IGD's are; it pads an odd side with zeros and
      counts them in the mean: some .003 at 177 px;
    - torchmetrics' on any side with one channel and a last weight of 0; it averages the coarsest similarity over
      reflected borders too, and each scale over channels.

    In float32 the value is within 2e-5 of float64's (the map of `ms_ssim_residual` within 2e-4), down to a contrast of
    1e-4 of the data range on the brightest ground.

    Args:
        x: Images (B, C, H, W), floating point; float16 and bfloat16 are computed in float32.
        y: Images of the same shape.
        data_range: Difference between the largest and the smallest possible value.
        window_size: Side of the Gaussian window, odd.
        sigma: Standard deviation of the window in pixels.
        weights: Exponent of each scale, finest first; as many scales as weights.
        k: Stabilising constants (K1, K2).

    Returns:
        Similarities (B,) in [0, 1].

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If shapes differ, an option is out of range, or the images are too small for the scales.

    Example:
        >>> images = torch.rand(2, 1, 64, 64)
        >>> ms_ssim(images, images, window_size=7, weights=(0.1, 0.3, 0.3, 0.3))
        tensor([1., 1.])
    """
    x, y = check_pair(x, y, data_range, window_size, sigma, weights)
    with torch.autocast(x.device.type, enabled=False):
        window = gaussian_window(window_size, sigma, x)
        value = x.new_ones(x.shape[:2])
        for scale, weight in enumerate(weights):
            if scale > 0:
                x = F.avg_pool2d(x, 2)
                y = F.avg_pool2d(y, 2)
            luminance, contrast = ssim_parts(x, y, window, data_range, k)
            is_last = scale == len(weights) - 1
            similarity = luminance * contrast if is_last else contrast
            mean_similarity = similarity.mean((2, 3))  # (B, C)
            value = value * positive_power(mean_similarity, weight)
        return value.mean(1)


def ms_ssim_residual(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    window_size: int = 11,
    sigma: float = 1.5,
    weights: Sequence[float] = WEIGHTS,
    k: tuple[float, float] = (0.01, 0.03),
) -> Tensor:
    """Return where two images differ: the sum over scales of weight x (1 - SSIM) at each pixel.

    Images are reflected at their borders; each scale is brought to full size bilinearly.

    Args:
        x: Images (B, C, H, W), floating point.
        y: Images of the same shape.
        data_range: Difference between the largest and the smallest possible value.
        window_size: Side of the Gaussian window, odd.
        sigma: Standard deviation of the window in pixels.
        weights: Weight of each scale, finest first.
        k: Stabilising constants (K1, K2).

    Returns:
        Residual maps (B, 1, H, W), 0 where the images agree, averaged over channels.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If shapes differ, an option is out of range, or the images are too small for the scales.

    Example:
        >>> image = torch.rand(1, 3, 64, 64)
        >>> ms_ssim_residual(image, image, window_size=7, weights=(0.5, 0.5)).abs().max() < 1e-5
        tensor(True)
    """
    x, y = check_pair(x, y, data_range, window_size, sigma, weights)
    size = x.shape[2:]
    with torch.autocast(x.device.type, enabled=False):
        window = gaussian_window(window_size, sigma, x)
        residual = x.new_zeros(len(x), 1, *size)
        for scale, weight in enumerate(weights):
            if scale > 0:
                x = F.avg_pool2d(x, 2)
                y = F.avg_pool2d(y, 2)
            # Reflected borders let the window stand on each pixel.
            border = (window_size // 2,) * 4
            padded_x = F.pad(x, border, mode="reflect")
            padded_y = F.pad(y, border, mode="reflect")
            luminance, contrast = ssim_parts(padded_x, padded_y, window, data_range, k)
            similarity = (luminance * contrast).mean(1, keepdim=True)
            difference = 1 - similarity
            full_size = F.interpolate(difference, size=size, mode="bilinear")
            residual = residual + weight * full_size
        return residual


def scales_for(side: int) -> tuple[int, tuple[float, ...]]:
    """Return IGD's window and scale weights for square images of this side: `ms_ssim(window_size=, weights=)`.

    5 scales with window 11 from 176 pixels on; below, 4 scales with the largest window of 11, 7, 3 that fits and the
    first four weights divided by their sum.

    Raises:
        ValueError: If the side is below 24 pixels, the smallest for 4 scales.

    Example:
        >>> scales_for(32)[0]
        3
    """
    if side >= 176:
        return 11, WEIGHTS
    coarsest_side = side // 8
    fitting = [window for window in (11, 7, 3) if window <= coarsest_side]
    if not fitting:
        raise ValueError(f"expected images of at least 24 x 24 pixels for 4 scales, got side {side}: enlarge them")
    weights = WEIGHTS[:4]
    total = sum(weights)
    shares = tuple(weight / total for weight in weights)
    return fitting[0], shares


def check_floating(name: str, image: object) -> None:
    """Refuse what is no floating-point tensor."""
    if not isinstance(image, Tensor):
        got = type(image).__name__
    elif not image.is_floating_point():
        got = str(image.dtype)
    else:
        return
    raise TypeError(f"expected {name} to be a floating-point tensor, got {got}: convert it with .float()")


def check_pair(
    x: Tensor,
    y: Tensor,
    data_range: float,
    window_size: int,
    sigma: float,
    weights: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Refuse wrong input; return both images in one dtype of at least single precision."""
    check_floating("x", x)
    check_floating("y", y)
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"expected x and y of one shape (B, C, H, W), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not (data_range > 0 and sigma > 0):
        raise ValueError(f"expected data_range and sigma above 0, got {data_range} and {sigma}")
    if window_size < 1 or window_size % 2 == 0:
        raise ValueError(f"expected an odd window_size of at least 1, got {window_size}")
    if len(weights) == 0 or min(weights) < 0:
        raise ValueError(f"expected at least one scale and no negative weight, got {tuple(weights)}")
    halvings = len(weights) - 1
    smallest = window_size * 2**halvings
    if min(x.shape[2:]) < smallest:
        raise ValueError(
            f"expected sides of at least {smallest} for {len(weights)} scales and window {window_size}, got "
            f"{x.shape[2]} x {x.shape[3]}: enlarge the images, or pass fewer weights or a smaller window_size"
        )
    common = torch.promote_types(x.dtype, y.dtype)
    dtype = torch.promote_types(common, torch.float32)
    return x.to(dtype), y.to(dtype)


def ssim_parts(
    x: Tensor,
    y: Tensor,
    window: Tensor,
    data_range: float,
    k: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure at each place the window fits, (B, C, H - w + 1, W - w + 1) each.

    Four filtered maps suffice: the two variances occur only as their sum.
    """
    c1 = (k[0] * data_range) ** 2
    c2 = (k[1] * data_range) ** 2
    sum_of_squares = x * x + y * y
    values = torch.cat([x, y, sum_of_squares, x * y], dim=1)  # (B, 4C, H, W)
    moments = window_means(values, window)  # (B, 4C, H', W')
    mean_x, mean_y, squares, product = moments.chunk(4, dim=1)
    mean_product = mean_x * mean_y
    mean_squares = mean_x * mean_x + mean_y * mean_y
    luminance = (2 * mean_product + c1) / (mean_squares + c1)
    covariance = product - mean_product
    variances = squares - mean_squares
    contrast = (2 * covariance + c2) / (variances + c2)
    return luminance, contrast


def positive_power(base: Tensor, exponent: float) -> Tensor:
    """Power of the base, with value and gradient 0 where the base is not positive (a plain power gives NaN there)."""
    positive = base > 0
    safe = torch.where(positive, base, 1)  # whose gradient is finite where it is not used
    return torch.where(positive, safe**exponent, 0)
