"""Bring what a network returns to maps (B, C, rows, columns): containers, channels-last maps, tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from detectors.backbones.taps import DEFAULT_LAYERS
from detectors.inputs import shape_of

Size = tuple[int, int]
MOST_PREFIX_TOKENS = 16  # class and register tokens of any known transformer: DINOv2 has 1 + 4


class Tokens(NamedTuple):
    """What a transformer says about its tokens; None where it does not."""

    patch_size: Size | None
    prefix: int | None  # class and register tokens, which come first


def as_maps(
    output: Any,
    layers: Sequence[str] | None,
    image_size: Size,
    tokens: Tokens,
) -> list[Tensor]:
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
    bad = [_kind(value) for value in values if not _is_usable(value)]
    if bad or not values:
        raise ValueError(
            f"expected feature maps (B, c, h, w) from the backbone, got {bad or 'none'}: "
            "name submodules of the backbone in layers, or give a backbone whose forward returns maps"
        )
    maps = []
    unsure = []
    for value in values:
        is_map = value.ndim == 4
        maps.append(value if is_map else tokens_to_map(value, image_size, tokens))
        unsure.append(is_map)
    return channels_first(maps, unsure, image_size)


def channels_first(maps: Sequence[Tensor], unsure: Sequence[bool], image_size: Size) -> list[Tensor]:
    """Permute maps (B, rows, columns, C), as Swin's, to (B, C, rows, columns).

    Which axis holds the channels shows in the shapes: rows and columns have the image's aspect. All maps of a network
    are of one kind, so that a map which fits both ways follows the others.

    Raises:
        ValueError: If the maps have the image's aspect neither way.
    """
    pairs = list(zip(maps, unsure, strict=True))
    shapes = [shape_of(one) for one, doubtful in pairs if doubtful]
    grids_if_first = [(shape[1], shape[2]) for shape in shapes]
    grids_if_last = [(shape[0], shape[1]) for shape in shapes]
    # An exact fit either way counts more than one up to the rounding of a convolution's border.
    for fits in (_divides, _resembles):
        if all(fits(grid, image_size) for grid in grids_if_first):
            return list(maps)
        if all(fits(grid, image_size) for grid in grids_if_last):
            return [one.permute(0, 3, 1, 2) if doubtful else one for one, doubtful in pairs]
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
    prefixes: Sequence[int] = range(MOST_PREFIX_TOKENS + 1)
    if tokens.prefix is not None:
        prefixes = [tokens.prefix, 0]
    found = _first_fit(grids, prefixes, count)
    if found is None:
        raise ValueError(
            f"expected tokens (B, N, D) of a grid of patches of images of {image_size[0]} x {image_size[1]}, got "
            f"{count} tokens, patch size {tokens.patch_size}, {tokens.prefix} class and register tokens: give the "
            "backbone an attribute patch_size, or let its forward return maps (B, C, rows, columns)"
        )
    rows, columns = found
    prefix = count - rows * columns
    patches = values[:, prefix:]
    channels_before = patches.transpose(1, 2)  # (B, D, rows * columns)
    return channels_before.reshape(len(values), -1, rows, columns)


def tokens_of(network: nn.Module) -> Tokens:
    """Ask a transformer of timm, torchvision, Hugging Face or DINO for its patch size and its first tokens."""
    for module in network.modules():
        config = getattr(module, "config", None)
        size = getattr(module, "patch_size", None) or getattr(config, "patch_size", None)
        if size is None:
            continue
        if isinstance(size, int):
            size = (size, size)
        *_, rows, columns = size  # a video's has a depth before them
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
    if isinstance(registers, int):
        return 1 + registers
    return None


def _values(output: Any, layers: Sequence[str] | None) -> list[Any]:
    """The tensors of a network's output, in the order of the layers where these name them."""
    for name in ("feature_maps", "last_hidden_state"):  # Hugging Face
        named = getattr(output, name, None)
        if named is not None:
            output = named
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, Mapping):
        return list(output)
    if not layers:
        return list(output.values())
    unknown = [name for name in layers if name not in output]
    if not unknown:
        return [output[name] for name in layers]
    # The default's names are no wish of the caller's.
    if tuple(layers) != DEFAULT_LAYERS:
        raise ValueError(f"expected layers among the backbone's maps {list(output)}, got unknown {unknown}")
    return list(output.values())


def _is_usable(value: Any) -> bool:
    """Whether it is maps or tokens."""
    return isinstance(value, Tensor) and value.ndim in (3, 4)


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return type(value).__name__


def _divides(grid: Size, image_size: Size) -> bool:
    """Whether one whole stride leads from the image to the grid."""
    rows, columns = grid
    down, rest_below = divmod(image_size[0], rows)
    across, rest_right = divmod(image_size[1], columns)
    return rest_below == rest_right == 0 and down == across


def _resembles(grid: Size, image_size: Size) -> bool:
    """Whether one stride leads from the image to the grid, borders of up to two cells aside."""
    least = []
    most = []
    for cells, pixels in zip(grid, image_size, strict=True):
        least.append(pixels / (cells + 2))
        most.append(pixels / max(cells - 2, 0.5))
    return max(least) <= min(most)


def _first_fit(grids: Sequence[Size], prefixes: Sequence[int], count: int) -> Size | None:
    """The first grid that has this many tokens with one of the prefixes, the earliest of these."""
    for prefix in prefixes:
        for grid in grids:
            if math.prod(grid) + prefix == count:
                return grid
    return None


def _grids(image_size: Size, patch_size: Size | None) -> list[Size]:
    """Grids that an image can be cut into, fine to coarse."""
    height, width = image_size
    if patch_size is None:
        common = math.gcd(height, width)
        strides = [stride for stride in range(1, common + 1) if common % stride == 0]
        return [(height // stride, width // stride) for stride in strides]
    # Swin's later stages join patches two by two. Where the patch size does not divide the image, some networks leave
    # the rest out and others pad it.
    grids = []
    for stage in range(6):
        rows = height / (patch_size[0] << stage)
        columns = width / (patch_size[1] << stage)
        if min(rows, columns) >= 1:
            grids.append((math.floor(rows), math.floor(columns)))
        grids.append((math.ceil(rows), math.ceil(columns)))
    return grids
