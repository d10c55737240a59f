"""The terms of IGD's training, one pure function each; those of a batch end in a mean, so that batches compare.

R is the data range, x~ = g(f(x)) a reconstruction, z = f(x) a code.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from detectors.igd.ms_ssim import ms_ssim, ms_ssim_residual, scales_for

SMALLEST_CENTRE = 0.1
SMALLEST_SIGMA = 1.0


class IGDLosses(NamedTuple):
    """What the encoder and decoder minimise: `total` is the sum of the three terms."""

    total: Tensor
    reconstruction: Tensor
    classification: Tensor
    interpolation: Tensor


def reconstruction_error(
    images: Tensor,
    reconstructions: Tensor,
    *,
    rho: float,
    data_range: float,
) -> Tensor:
    """Return l_rec of eq. (11) for one model and each image: rho mean|x - x~| / R + (1 - rho) (1 - MS-SSIM).

    Args:
        images: Images (B, C, H, H).
        reconstructions: Their reconstructions, same shape.
        rho: Weight of the absolute error in [0, 1].
        data_range: R, largest minus smallest possible value.

    Returns:
        Errors (B,).

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> reconstruction_error(images, images, rho=0.15, data_range=1.0).abs().max() < 1e-5
        tensor(True)
    """
    similarity = similarity_of(images, reconstructions, data_range=data_range)
    error = absolute_error(images, reconstructions, data_range=data_range)
    return rho * error + (1 - rho) * (1 - similarity)


def similarity_of(images: Tensor, reconstructions: Tensor, *, data_range: float) -> Tensor:
    """M of eq. (11): MS-SSIM (B,) with the window and scales that fit the images (B, C, H, H)."""
    window, weights = scales_for(min(images.shape[2:]))
    return ms_ssim(
        images,
        reconstructions,
        data_range=data_range,
        window_size=window,
        weights=weights,
    )


def absolute_error(images: Tensor, reconstructions: Tensor, *, data_range: float) -> Tensor:
    """Mean over channels and pixels of |x - x~| / R: (B, C, H, W) -> (B,)."""
    error = (images - reconstructions).float().abs()
    return error.flatten(1).mean(1) / data_range


def residual_map(
    images: Tensor,
    reconstructions: Tensor,
    *,
    rho: float,
    data_range: float,
) -> Tensor:
    """Return `reconstruction_error` spread over pixels: rho |x - x~| / R + (1 - rho) sum_s w_s (1 - SSIM_s).

    Args:
        images: Images (B, C, H, H).
        reconstructions: Their reconstructions, same shape.
        rho: Weight of the absolute error in [0, 1].
        data_range: R, largest minus smallest possible value.

    Returns:
        Maps (B, 1, H, H).

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> residual_map(images, images, rho=0.15, data_range=1.0).shape
        torch.Size([2, 1, 32, 32])
    """
    window, weights = scales_for(min(images.shape[2:]))
    dissimilar = ms_ssim_residual(
        images,
        reconstructions,
        data_range=data_range,
        window_size=window,
        weights=weights,
    )
    difference = (images - reconstructions).float().abs()
    error = difference.mean(1, keepdim=True) / data_range
    return rho * error + (1 - rho) * dissimilar


def normality(codes: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
    """Return h of eq. (10), the Gaussian anomaly classifier: exp(-|z - c|^2 / sigma).

    Args:
        codes: z (B, D).
        centre: c (D,).
        sigma: Scalar above 0.

    Returns:
        Likelihoods (B,) in (0, 1]; the exponent stops at -80, before float32 rounds the value to 0.

    Example:
        >>> normality(torch.tensor([[0.0, 1.0]]), torch.tensor([0.0, 1.0]), torch.tensor(1.0))
        tensor([1.])
    """
    distance = (codes.float() - centre).square().sum(1)
    exponent = (distance / sigma).clamp(max=80)
    return torch.exp(-exponent)


def classification_loss(codes: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
    """Return the anomaly classifier's loss on normal codes (B, D): the mean of 1 - h(z).

    Example:
        >>> classification_loss(torch.zeros(2, 3), torch.zeros(3), torch.tensor(1.0))
        tensor(0.)
    """
    anomaly = 1 - normality(codes, centre, sigma)
    return anomaly.mean()


def interpolate_codes(codes: Tensor, alpha: Tensor) -> Tensor:
    """Return alpha z + (1 - alpha) flip(z): every code (B, D) mixed with its mirror place in the batch, alpha (B,).

    Example:
        >>> interpolate_codes(torch.tensor([[0.0], [1.0]]), torch.tensor([0.25, 0.5]))
        tensor([[0.7500],
                [0.5000]])
    """
    share = alpha[:, None].to(codes.dtype)
    return share * codes + (1 - share) * codes.flip(0)


def interpolation_loss(estimates: Tensor) -> Tensor:
    """Return the mean square of the critic's estimates (B,) of interpolations: at 0 they pass for real images.

    Raises:
        ValueError: If the estimates are not one number per sample.

    Example:
        >>> interpolation_loss(torch.tensor([1.0, 2.0]))
        tensor(2.5000)
    """
    check_per_sample(estimates=estimates)
    return estimates.float().square().mean()


def critic_loss(estimates: Tensor, alpha: Tensor, anchors: Tensor) -> Tensor:
    """Return mean (d(x_alpha) - alpha)^2 + mean d(x~ + gamma (x - x~))^2.

    Args:
        estimates: The critic's values (B,) of decoded interpolations x_alpha.
        alpha: The shares (B,) they were mixed with.
        anchors: The critic's values (B,) of images blended with their own reconstructions.

    Raises:
        ValueError: If an argument is not one number per sample: (B,) against (B, 1) would broadcast to (B, B).

    Example:
        >>> critic_loss(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.0]))
        tensor(0.1250)
    """
    check_per_sample(estimates=estimates, alpha=alpha, anchors=anchors)
    of_interpolations = (estimates.float() - alpha).square().mean()
    of_anchors = anchors.float().square().mean()
    return of_interpolations + of_anchors


def check_per_sample(**values: Tensor) -> None:
    """Refuse values that are not (B,) with one B."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    first, *others = set(shapes.values())
    if others or len(first) != 1:
        raise ValueError(f"expected one number per sample, shape (B,), got {shapes}: flatten them")


def centre_and_sigma(mean: Tensor, mean_square: Tensor) -> tuple[Tensor, Tensor]:
    """Return c and sigma of the Gaussian classifier from streamed moments of the training codes.

    c is the mean with components pushed out to at least 0.1 in size (0 goes to +0.1), sigma the mean squared distance
    to that c, not below 1: mean|z - c|^2 = mean|z - mean|^2 + |mean - c|^2, so one pass over the data suffices.

    Args:
        mean: Mean code (D,).
        mean_square: Mean squared distance to that mean, a scalar.

    Example:
        >>> centre_and_sigma(torch.tensor([0.0, -2.0]), torch.tensor(3.0))
        (tensor([ 0.1000, -2.0000]), tensor(3.0100))
    """
    sign = torch.where(mean < 0, -1.0, 1.0).to(mean.dtype)
    size = mean.abs().clamp(min=SMALLEST_CENTRE)
    centre = sign * size
    offset = (mean - centre).square().sum()
    sigma = (mean_square + offset).clamp(min=SMALLEST_SIGMA)
    return centre, sigma
