"""From what the models say about images and patches to image scores and maps: eqs. (10) and (11)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detectors.igd.losses import absolute_error, residual_map, similarity_of
from detectors.igd.options import check_shares
from detectors.igd.scales import Scale

SCORES = ("fused", "paper")


class ModelOutputs(NamedTuple):
    """What one model says about each of its inputs: whole images, or patches."""

    error: Tensor  # (N,) mean |x - x~| / R
    similarity: Tensor  # (N,) MS-SSIM
    anomaly: Tensor  # (N,) 1 - h
    residual: Tensor  # (N, 1, S, S)


class ScoreWeights(NamedTuple):
    """The weights of eqs. (10) and (11)."""

    xi: dict[str, float]  # of the reconstruction, by scale
    share: dict[str, float]  # of each scale in the image score: nu and 1 - nu, or 1
    rho: float  # of the absolute error


def run_scale(scale: Scale, images: Tensor, chunk_size: int) -> ModelOutputs:
    """What a scale's model says about the inputs that images (B, C, H, H) make."""
    chunks = [run_model(scale, inputs) for inputs in scale.inputs(images, chunk_size)]
    return concatenate(chunks)


def run_model(scale: Scale, inputs: Tensor) -> ModelOutputs:
    """Let a scale's model reconstruct and classify inputs (N, C, S, S)."""
    model = scale.model
    data_range = model.data_range
    reconstructions, likelihood = model(scale.backbone(inputs))
    error = absolute_error(inputs, reconstructions, data_range=data_range)
    similarity = similarity_of(inputs, reconstructions, data_range=data_range)
    residual = residual_map(inputs, reconstructions, rho=model.rho, data_range=data_range)
    return ModelOutputs(error, similarity, 1 - likelihood, residual)


def concatenate(chunks: Iterable[ModelOutputs]) -> ModelOutputs:
    """Outputs for consecutive chunks as one."""
    fields = zip(*chunks, strict=True)
    joined = [torch.cat(values) for values in fields]
    return ModelOutputs(*joined)


def score_inputs(outputs: ModelOutputs, xi: float, rho: float) -> Tensor:
    """Score each input of one model: (N,)."""
    dissimilarity = 1 - outputs.similarity
    reconstruction = rho * outputs.error + (1 - rho) * dissimilarity  # eq. (11)
    return xi * reconstruction + (1 - xi) * outputs.anomaly  # eq. (10)


def fused_score(
    scales: Mapping[str, Scale],
    outputs: Mapping[str, ModelOutputs],
    weights: ScoreWeights,
) -> Tensor:
    """Add the scales' scores by their shares; an image is as bad as its worst input: (B,)."""
    scores = []
    for name, scale in scales.items():
        xi = weights.xi[name]
        each_input = score_inputs(outputs[name], xi, weights.rho)
        by_image = scale.per_image(each_input)  # (B, inputs of an image)
        worst_input = by_image.amax(1)
        scores.append(weights.share[name] * worst_input)
    return torch.stack(scores).sum(0)


def paper_score(
    scales: Mapping[str, Scale],
    outputs: Mapping[str, ModelOutputs],
    weights: ScoreWeights,
) -> Tensor:
    """Eqs. (10) and (11) of both scales literally: |x - x~| and h are the global model's, m_L the patches' mean."""
    similarities = []
    for name, scale in scales.items():
        by_image = scale.per_image(outputs[name].similarity)  # (B, inputs of an image)
        mean_similarity = by_image.mean(1)
        similarities.append(weights.share[name] * mean_similarity)
    similarity = torch.stack(similarities).sum(0)
    joined = outputs["global"]._replace(similarity=similarity)
    return score_inputs(joined, weights.xi["global"], weights.rho)


def summed_map(
    scales: Mapping[str, Scale],
    outputs: Mapping[str, ModelOutputs],
    weights: ScoreWeights,
) -> Tensor:
    """Eq. (10) at each pixel, summed over the scales: (B, 1, H, H)."""
    maps = []
    for name, scale in scales.items():
        xi = weights.xi[name]
        residual = outputs[name].residual  # (N, 1, S, S)
        anomaly = outputs[name].anomaly.view(-1, 1, 1, 1)  # spread over the input
        map_of_inputs = xi * residual + (1 - xi) * anomaly
        maps.append(scale.image_map(map_of_inputs))
    return torch.stack(maps).sum(0)


def score_weights(
    scales: Sequence[str], score: str, xi: float | tuple[float, float] | None, nu: float, rho: float
) -> ScoreWeights:
    """Return the weights of each scale; the scales of a fused pair weigh their reconstructions differently.

    Raises:
        ValueError: If one is out of range.
    """
    is_pair = len(scales) == 2
    if xi is None:
        xi = (0.1, 0.9) if is_pair and score == "fused" else 0.5
    if not isinstance(xi, tuple):
        xi = (xi, xi)
    xi_global, xi_local = xi
    check_shares(nu=nu, rho=rho, xi=xi_global)
    check_shares(xi=xi_local)
    share = dict.fromkeys(scales, 1.0)
    if is_pair:
        share = {"global": nu, "local": 1 - nu}
    return ScoreWeights({"global": xi_global, "local": xi_local}, share, rho)
