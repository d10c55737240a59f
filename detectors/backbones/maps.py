"""Bring what a network returns to maps (B, C, rows, columns): containers, channels-last maps, tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from detectors.backbones.taps import DEFAULT_LAYERS

Size = tuple[int, int]
MOST_PREFIX_TOKENS = 16  # class and register tokens of any known transformer: DINOv2 has 1 + 4


class Tokens(NamedTuple):
    """What a transformer says about its tokens; None where it does not."""

    patch_size: Size | None
    prefix: int | None  # class and register tokens, which come first


def as_maps(output: Any, layers: Sequence[str] | None, image_size: Size, tokens: Tokens) -> list[Tensor]:
    """Return a network's output as a list of maps (B, C, rows, columns).

    Args:
        output: A tensor, a list or a dict of tensors, or an output of Hugging Face's with `feature_maps` or
            `last_hidden_state`. Tensors are maps, channels first or last, or tokens (B, N, D).
        layers: Keys of a dict, in the order in which they are wanted; its values where it has none of these.
        image_size: Rows and columns of the images.
        tokens: What `tokens_of` found.

    Raises:
        ValueError: If it holds anything else, or the layers are no keys of it.
    """
    values = _values(output, layers)
    bad = [_kind(value) for value in values if not isinstance(value, Tensor) or value.ndim not in (3, 4)]
    if bad or not values:
        raise ValueError(
            f"expected feature maps (B, c, h, w) from the backbone, got {bad or 'none'}: "
            "name submodules of the backbone in layers, or give a backbone whose forward returns maps"
        )
    maps = [tokens_to_map(value, image_size, tokens) if value.ndim == 3 else value for value in values]
    return channels_first(maps, [value.ndim == 4 for value in values], image_size)


def channels_first(maps: Sequence[Tensor], unsure: Sequence[bool], image_size: Size) -> list[Tensor]:
    """Permute maps (B, rows, columns, C), as Swin's, to (B, C, rows, columns).

    Which axis holds the channels shows in the shapes: rows and columns have the image's aspect. All maps of a network
    are of one kind, so that a map which fits both ways follows the others.

    Raises:
        ValueError: If the maps have the image's aspect neither way.
    """
    shapes = [(m.shape[1], m.shape[2], m.shape[3]) for m, doubtful in zip(maps, unsure, strict=True) if doubtful]
    grids = {"first": [shape[1:] for shape in shapes], "last": [shape[:2] for shape in shapes]}
    # An exact fit either way counts more than one up to the rounding of a convolution's border.
    for fits in (_divides, _resembles):
        for order, candidates in grids.items():
            if all(fits(grid, image_size) for grid in candidates):
                turn = order == "last"
                return [
                    m.permute(0, 3, 1, 2) if turn and doubtful else m for m, doubtful in zip(maps, unsure, strict=True)
                ]
    raise ValueError(
        f"expected feature maps (C, rows, columns) of the aspect of images of {image_size[0]} x {image_size[1]} from "
        f"the backbone, got {shapes}: name layers that return maps, channels first or last"
    )


def tokens_to_map(values: Tensor, image_size: Size, tokens: Tokens) -> Tensor:
    """Bring tokens (B, N, D) to a map (B, D, rows, columns); class and register tokens, the first ones, are dropped.

    Raises:
        ValueError: If no grid of patches has this many tokens.
    """
    count = values.shape[1]
    grids = _grids(image_size, tokens.patch_size)
    wanted = range(MOST_PREFIX_TOKENS + 1) if tokens.prefix is None else [tokens.prefix, 0]
    found = [grid for prefix in wanted for grid in grids if math.prod(grid) + prefix == count]
    if not found:
        raise ValueError(
            f"expected tokens (B, N, D) of a grid of patches of images of {image_size[0]} x {image_size[1]}, got "
            f"{count} tokens, patch size {tokens.patch_size}, {tokens.prefix} class and register tokens: give the "
            "backbone an attribute patch_size, or let its forward return maps (B, C, rows, columns)"
        )
    rows, columns = found[0]
    patches = values[:, count - rows * columns :]
    return patches.transpose(1, 2).reshape(len(values), -1, rows, columns)


def tokens_of(network: nn.Module) -> Tokens:
    """Ask a transformer of timm, torchvision, Hugging Face or DINO for its patch size and its first tokens."""
    for module in network.modules():
        config = getattr(module, "config", None)
        size = getattr(module, "patch_size", None) or getattr(config, "patch_size", None)
        if size is None:
            continue
        rows, columns = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        return Tokens((int(rows), int(columns)), _prefix(network))
    return Tokens(None, None)


def _prefix(network: nn.Module) -> int | None:
    """Number of class and register tokens; None if the network does not say."""
    for module in network.modules():
        own = getattr(module, "num_prefix_tokens", None)  # timm
        if isinstance(own, int):
            return own
    config = getattr(network, "config", network)
    registers = getattr(config, "num_register_tokens", None)  # DINO's own and Hugging Face's
    return 1 + registers if isinstance(registers, int) else None


def _values(output: Any, layers: Sequence[str] | None) -> list[Any]:
    """The tensors of a network's output, in the order of the layers where these name them."""
    for name in ("feature_maps", "last_hidden_state"):  # Hugging Face
        if getattr(output, name, None) is not None:
            output = getattr(output, name)
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        unknown = [name for name in layers or () if name not in output]
        if layers and not unknown:
            return [output[name] for name in layers]
        if unknown and tuple(layers or ()) != DEFAULT_LAYERS:
            raise ValueError(f"expected layers among the backbone's maps {list(output)}, got unknown {unknown}")
        return list(output.values())
    return list(output)


def _kind(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _divides(grid: Size, image_size: Size) -> bool:
    """Whether one whole stride leads from the image to the grid."""
    (rows, columns), (height, width) = grid, image_size
    return height % rows == 0 and width % columns == 0 and height // rows == width // columns


def _resembles(grid: Size, image_size: Size) -> bool:
    """Whether one stride leads from the image to the grid, borders of up to two cells aside."""
    (rows, columns), (height, width) = grid, image_size
    least = max(height / (rows + 2), width / (columns + 2))
    most = min(height / max(rows - 2, 0.5), width / max(columns - 2, 0.5))
    return least <= most


def _grids(image_size: Size, patch_size: Size | None) -> list[Size]:
    """Grids that an image can be cut into, fine to coarse."""
    height, width = image_size
    if patch_size is None:
        strides = [(stride, stride) for stride in range(1, min(height, width) + 1)]
        return [(height // s, width // s) for s, _ in strides if height % s == 0 and width % s == 0]
    # Swin's later stages join patches two by two. Where the patch size does not divide the image, some networks leave
    # the rest out and others pad it.
    strides = [(patch_size[0] << k, patch_size[1] << k) for k in range(6)]
    whole = [(height // rows, width // columns) for rows, columns in strides]
    padded = [(-(-height // rows), -(-width // columns)) for rows, columns in strides]
    return [grid for pair in zip(whole, padded, strict=True) for grid in pair if min(grid) > 0]
