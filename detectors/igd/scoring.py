"""From what the models say about images and patches to image scores and maps: eqs. (10) and (11)."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectors.igd.losses import absolute_error, residual_map, similarity_of
from detectors.igd.model import IGDModel
from detectors.igd.patches import average_patches

SCALES = ("global", "local", "both")
SCORES = ("fused", "paper")


class Parts(NamedTuple):
    """What one model says about each of its inputs: whole images, or patches."""

    error: Tensor  # (N,) mean |x - x~| / R
    similarity: Tensor  # (N,) MS-SSIM
    anomaly: Tensor  # (N,) 1 - h
    residual: Tensor  # (N, 1, S, S)


class Weights(NamedTuple):
    """The weights of eqs. (10) and (11)."""

    xi: dict[str, float]  # of the reconstruction, by scale
    nu: float  # of the global model
    rho: float  # of the absolute error


def judge(model: IGDModel, images: Tensor, features: Tensor) -> Parts:
    """Let a model reconstruct and classify images of its own size."""
    reconstructions, likelihood = model(features)
    pair, data_range = (images, reconstructions), model.data_range
    return Parts(
        absolute_error(*pair, data_range=data_range),
        similarity_of(*pair, data_range=data_range),
        1 - likelihood,
        residual_map(*pair, rho=model.rho, data_range=data_range),
    )


def joined(parts: list[Parts]) -> Parts:
    """Parts of consecutive chunks as one."""
    return Parts(*(torch.cat(values) for values in zip(*parts, strict=True)))


def score_eq10(parts: Parts, xi: float, rho: float) -> Tensor:
    """Eq. (10) of each input of one model: xi l_rec + (1 - xi) (1 - h), (N,)."""
    reconstruction = rho * parts.error + (1 - rho) * (1 - parts.similarity)
    return xi * reconstruction + (1 - xi) * parts.anomaly


def fused_score(parts: dict[str, Parts], weights: Weights, count: int) -> Tensor:
    """Eq. (10) per model, the worst patch of the local one; nu global + (1 - nu) local where there are both."""
    scores = {scale: score_eq10(p, weights.xi[scale], weights.rho) for scale, p in parts.items()}
    if "local" in scores:
        scores["local"] = scores["local"].view(count, -1).amax(1)
    if len(scores) == 1:
        return next(iter(scores.values()))
    return weights.nu * scores["global"] + (1 - weights.nu) * scores["local"]


def paper_score(parts: dict[str, Parts], weights: Weights, count: int) -> Tensor:
    """Eqs. (10) and (11) literally: m_L is the mean over patches, |x - x~| and h are the global model's.

    With one model the equations hold one similarity only, which is the fused score.
    """
    if len(parts) == 1:
        return fused_score(parts, weights, count)
    local = parts["local"].similarity.view(count, -1).mean(1)
    similarity = weights.nu * parts["global"].similarity + (1 - weights.nu) * local
    return score_eq10(parts["global"]._replace(similarity=similarity), weights.xi["global"], weights.rho)


def summed_map(parts: dict[str, Parts], weights: Weights, image_size: int) -> Tensor:
    """Eq. (10) at each pixel, the sum of the models' maps with overlapping patches averaged: (B, 1, H, H)."""
    maps = []
    for scale, p in parts.items():
        xi = weights.xi[scale]
        one = xi * p.residual + (1 - xi) * p.anomaly[:, None, None, None]
        maps.append(one if scale == "global" else average_patches(one, image_size))
    return torch.stack(maps).sum(0)


def reconstruction_weights(xi: float | tuple[float, float] | None, scales: str, score: str) -> dict[str, float]:
    """Return xi of eq. (10) by scale."""
    if xi is None:
        xi = (0.1, 0.9) if scales == "both" and score == "fused" else 0.5
    pair = xi if isinstance(xi, tuple) else (xi, xi)
    return dict(zip(("global", "local"), pair, strict=True))


def check_options(
    scales: str, score: str, xi: float | tuple[float, float] | None, shares: dict[str, float], above_0: dict[str, float]
) -> None:
    """Refuse options that are out of range."""
    if scales not in SCALES:
        raise ValueError(f"expected scales to be one of {', '.join(SCALES)}, got {scales!r}")
    if score not in SCORES:
        raise ValueError(f"expected score to be one of {', '.join(SCORES)}, got {score!r}")
    pair = xi if isinstance(xi, tuple) else (xi,)
    for name, value in [*shares.items(), *(("xi", share) for share in pair if share is not None)]:
        if not 0 <= value <= 1:
            raise ValueError(f"expected {name} in [0, 1], got {value}")
    for name, value in above_0.items():
        if not value > 0:
            raise ValueError(f"expected {name} above 0, got {value}")
