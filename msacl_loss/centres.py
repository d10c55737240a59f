"""Class centres, equation (2), and what they look like."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import getclosurevars, isfunction, ismethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from msacl_loss.checks import (
    check_centres,
    check_classes,
    check_embeddings,
    check_finite,
    check_range,
    check_whole,
)
from msacl_loss.distributed import GatherDistributed, is_distributed
from msacl_loss.vectors import unit_vectors


@torch.no_grad()
def estimate_centres(
    embed: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    gather_distributed: GatherDistributed = "auto",
    normalize: bool = True,
) -> Tensor:
    """Mean embedding of each class in one streaming pass, equation (2).

    `MSACLLoss.fit_centres` calls this with the loss's own options, so that the two agree.

    Batch-norm layers use the statistics of the batch, as they do in training, and keep their running statistics: with
    an encoder fresh from initialisation those are not the data's, and centres taken with them lie elsewhere. So let
    every batch hold all classes, as the training batches do.

    Args:
        embed: Maps images (N, C, H, W) to embeddings (N, D). Its batch-norm layers are found when it is a module, a
            method of a module, a `functools.partial` of or with one, or a function that names its modules directly.
        batches: Pairs of images (N, C, H, W) and labels (N,), int64 in 0..num_classes-1; any sizes.
        num_classes: Number of classes C.
        gather_distributed: Join the sums of all processes, each of which must have a batch; "auto": when there are any.
        normalize: Average z / |z| instead of z, as `MSACLLoss` of the same option contrasts them.

    Returns:
        Centres (C, D), float32 (float64 for float64 embeddings).

    Raises:
        TypeError: An embedding or label is not a tensor or has another dtype.
        ValueError: A class has no sample, a label is out of range, embeddings are not finite, or shapes are off.

    Example:
        >>> batches = [(2 * torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> estimate_centres(nn.Identity(), batches, num_classes=2)
        tensor([[1.0000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    check_whole(num_classes=num_classes)
    if not callable(embed):
        raise TypeError(f"expected embed as a function of images, got {type(embed).__name__}: pass the encoder")
    with _batch_statistics(embed):
        sums, dtype = _class_sums(embed, batches, num_classes, normalize)
    if is_distributed(gather_distributed):
        dist.all_reduce(sums)
    counts = sums[:, -1:]
    if not counts.all():
        found = counts.flatten().int().tolist()
        raise ValueError(
            f"expected samples of all {num_classes} classes, got {found} of each: each batch should hold them all"
        )
    return (sums[:, :-1] / counts).to(dtype)


def _class_sums(
    embed: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    normalize: bool,
) -> tuple[Tensor, torch.dtype]:
    """Sums of each class's embeddings and, in the last column, their number, (C, D + 1); and the centres' dtype."""
    sums = torch.zeros(num_classes, 1, dtype=torch.float64)
    dtype = torch.float32
    dim = None
    for batch in batches:
        images, labels = _pair(batch)
        z = embed(images)
        check_embeddings("embed(images)", z, dim=dim)
        dim = z.shape[1]
        check_finite("embed(images)", z)
        check_classes("labels", labels, len(z))
        check_range("labels", labels, num_classes)
        z = unit_vectors(z) if normalize else z

        # One product sums each class; a column of ones counts its members. float64 keeps small differences.
        members = F.one_hot(labels.to(z.device), num_classes).T.double()  # (C, N)
        ones = z.new_ones(len(z), 1, dtype=torch.float64)
        rows = torch.cat((z.double(), ones), dim=1)  # (N, D + 1)
        sums = sums.to(z.device) + members @ rows
        dtype = torch.promote_types(dtype, z.dtype)
    return sums, dtype


def _pair(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{len(batch)} values" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"expected batches (images, labels), got {got}: pass [(images, labels)] for one batch")
    images, labels = batch
    return images, labels


def centre_distances(centres: Tensor) -> Tensor:
    """Euclidean distance between each two centres: (C, D) -> (C, C), in float64 for any input.

    Raises:
        TypeError: They are no floating tensor.
        ValueError: Their shape is off, or they are not finite.

    Example:
        >>> centre_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[0., 5.],
                [5., 0.]], dtype=torch.float64)
    """
    check_centres(centres)
    check_finite("centres", centres)
    points = centres.double()
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


@contextmanager
def _batch_statistics(embed: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the batch-norm layers behind `embed` use batch statistics and leave their running ones alone."""
    layers = set()
    for module in _modules_of(embed):
        layers |= {layer for layer in module.modules() if isinstance(layer, _BatchNorm)}
    before = [(layer, layer.training, layer.track_running_stats) for layer in layers]
    try:
        for layer in layers:
            layer.training = True
            layer.track_running_stats = False
        yield
    finally:
        for layer, training, tracking in before:
            layer.training = training
            layer.track_running_stats = tracking


def _modules_of(embed: object) -> list[nn.Module]:
    """The modules behind a callable: itself, a method's or partial's owner, or those a function names."""
    if isinstance(embed, nn.Module):
        return [embed]
    if isinstance(embed, partial):
        given = [*embed.args, *embed.keywords.values()]
        return _modules_of(embed.func) + _only_modules(given)
    if ismethod(embed):
        return _modules_of(embed.__self__)
    if isfunction(embed):
        names = getclosurevars(embed)
        return _only_modules([*names.nonlocals.values(), *names.globals.values()])
    return []


def _only_modules(values: Iterable[object]) -> list[nn.Module]:
    return [value for value in values if isinstance(value, nn.Module)]
