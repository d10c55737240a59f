"""Multi-layer feature maps of any backbone: torchvision names, files, modules with named layers, modules of maps."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from detectors.checkpoint import read_state, state_of_model
from detectors.late_buffers import LateBuffers

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Statistics = tuple[Sequence[float], Sequence[float]]
Normalisation = Literal["auto", "imagenet"] | Statistics | None


class FeatureExtractor(LateBuffers):
    """The maps that a frozen backbone computes inside, or returns: images (B, C, H, W) to a list of (B, c, h, w).

    Args:
        backbone: A name of torchvision ("resnet18"), with `weights`; a file {"architecture": such a name,
            "state_dict": ...}; or any module. The extractor keeps a frozen copy in evaluation mode.
        layers: Names of the backbone's submodules whose outputs are the maps; only what they need is computed. Where
            the backbone has no such submodules, its forward must return the maps: a dict (these keys, if it has them
            all, else every value) or a list. None takes what forward returns.
        weights: For a name only: "DEFAULT" or another name of torchvision's weights (downloaded once), the path of a
            state_dict, or None for random weights.
        normalize: What the images in [0, 1] need before the backbone: (mean, std) per channel, "imagenet", or None
            for nothing. "auto" is "imagenet" for torchvision's weights and None otherwise: your module gets the images
            as they are. The statistics are part of the state_dict, as the weights are.

    Raises:
        TypeError: If the backbone is no name, path or module.
        ValueError: If a name is unknown, a file is unusable, or weights are given with a module.
        RuntimeError: If weights cannot be downloaded.

    Example:
        >>> extract = FeatureExtractor("resnet18", ["layer1", "layer2"], weights=None)
        >>> [tuple(m.shape) for m in extract(torch.rand(1, 3, 32, 32))]
        [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        backbone: str | Path | nn.Module,
        layers: Sequence[str] | None,
        *,
        weights: str | Path | None = "DEFAULT",
        normalize: Normalisation = "auto",
    ) -> None:
        super().__init__()
        if isinstance(layers, str):
            raise TypeError(f"expected a sequence of layer names, got the string {layers!r}: write ({layers!r},)")
        if normalize == "auto":
            named = isinstance(backbone, str) and is_name(backbone)
            normalize = "imagenet" if named and is_published(weights) else None
        statistics = IMAGENET if normalize == "imagenet" else normalize
        for name, value in zip(("mean", "std"), statistics or (None, None), strict=True):
            self.register_late_buffer(name)
            setattr(self, name, None if value is None else torch.tensor(value, dtype=torch.float32).view(1, -1, 1, 1))
        self.layers = None if layers is None else tuple(layers)
        self.backbone = prepared(make_backbone(backbone, weights), self.layers).requires_grad_(False)
        self.in_channels = channels_taken(self.backbone)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, C, H, W) to feature maps, in the order of `layers`; grey ones are repeated where 3 are due."""
        images = with_channels(images, self.in_channels)
        if self.mean is not None and self.std is not None:
            images = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        return as_maps(self.backbone(images), self.layers)

    def fold(self) -> None:
        """Join batch-norms with the convolutions before them, and compute in channels_last: same maps, faster.

        Where torch.fx cannot trace the backbone, only the memory format changes.
        """
        if isinstance(self.backbone, TappedBackbone):
            self.backbone = folded(self.backbone.backbone, self.backbone.layers) or self.backbone
        self.backbone.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: features of an image must not depend on its batch."""
        return super().train(False)


class TappedBackbone(nn.Module):
    """A backbone that stops after the last of the named submodules and returns all their outputs by name."""

    def __init__(self, backbone: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the backbone until every layer has been seen."""
        maps: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                maps[name] = output
                if len(maps) == len(self.layers) and not torch.compiler.is_compiling():
                    raise AllSeen  # an exported graph drops the unused rest by itself

            return hook

        handles = [self.backbone.get_submodule(name).register_forward_hook(keep(name)) for name in self.layers]
        try:
            self.backbone(images)
        except AllSeen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        unseen = [name for name in self.layers if name not in maps]
        if unseen:
            raise ValueError(f"expected layers that the backbone's forward runs, got {unseen}, which it does not")
        return maps


class AllSeen(Exception):  # noqa: N818  (no error: ends a forward pass early)
    """Every wanted map is there."""


def channels_taken(backbone: nn.Module) -> int | None:
    """How many channels the first convolution takes; None without any."""
    return next((m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Grey images (B, 1, H, W) repeated as (B, 3, H, W) where the backbone takes three channels."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 and channels == 3 else images


def prepared(backbone: nn.Module, layers: Sequence[str] | None) -> nn.Module:
    """The backbone itself if its forward returns the maps, else one that returns those of the named submodules."""
    known = dict(backbone.named_modules())
    if layers is None or not layers or not any(name in known for name in layers):
        return backbone
    missing = [name for name in layers if name not in known]
    if missing:
        children = ", ".join(name for name, _ in backbone.named_children())
        raise ValueError(f"expected layers among the backbone's submodules ({children}, ...), got unknown {missing}")
    return TappedBackbone(backbone, layers)


def folded(backbone: nn.Module, layers: Sequence[str]) -> nn.Module | None:
    """The part of the backbone that the layers need, with folded batch-norms; None if torch.fx cannot trace it."""
    from torch.fx.experimental.optimization import fuse
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        return fuse(create_feature_extractor(backbone, list(layers), suppress_diff_warning=True).eval(), inplace=True)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return None


def as_maps(output: Any, layers: Sequence[str] | None) -> list[Tensor]:
    """A backbone's output as a list of maps (B, c, h, w)."""
    if isinstance(output, Mapping):
        names = layers if layers and all(name in output for name in layers) else output
        output = [output[name] for name in names]
    maps = [output] if isinstance(output, Tensor) else list(output)
    bad = [tuple(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps if not is_map(m)]
    if bad or not maps:
        raise ValueError(
            f"expected feature maps (B, c, h, w) from the backbone, got {bad or 'none'}: "
            "name submodules of the backbone in layers, or give a backbone whose forward returns maps"
        )
    return maps


def is_map(value: Any) -> bool:
    """Whether it is a tensor (B, c, h, w)."""
    return isinstance(value, Tensor) and value.ndim == 4


def make_backbone(backbone: str | Path | nn.Module, weights: str | Path | None) -> nn.Module:
    """Build, read or copy the backbone."""
    if isinstance(backbone, nn.Module):
        return copy.deepcopy(backbone)
    if not isinstance(backbone, (str, Path)):
        raise TypeError(f"expected a torchvision name, a path or a module as backbone, got {type(backbone).__name__}")
    if is_name(backbone):
        return named_backbone(str(backbone), weights)
    if isinstance(backbone, Path) or Path(backbone).suffix:
        saved = read_state(backbone)
        if "architecture" not in saved:
            raise ValueError(
                f'expected {{"architecture": name, "state_dict": ...}} in {backbone}, got {list(saved)[:5]}'
            )
        return load_weights(named_backbone(str(saved["architecture"]), None), backbone)
    raise ValueError(
        f"expected a model of torchvision (such as resnet18, wide_resnet50_2) or a file as backbone, got {backbone!r}"
    )


def named_backbone(name: str, weights: str | Path | None) -> nn.Module:
    """A torchvision model with weights of its own, from a file, or random ones."""
    from torchvision.models import get_model

    if not is_name(name):
        raise ValueError(f"expected a model of torchvision such as resnet18, got {name!r}")
    if weights is not None and not is_published(weights):
        return load_weights(get_model(name, weights=None), weights)
    try:
        return get_model(name, weights=weights)  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"the weights of {name} could not be downloaded ({error}): pass the path of a state_dict as weights, or "
            "weights=None for random ones"
        ) from error


def is_name(backbone: str | Path) -> bool:
    """Whether it is the name of a torchvision model."""
    from torchvision.models import list_models  # a second: not at `import detectors`

    return isinstance(backbone, str) and backbone in list_models()


def is_published(weights: str | Path | None) -> bool:
    """Whether weights is a name of torchvision's rather than a path."""
    return isinstance(weights, str) and not Path(weights).suffix and not Path(weights).exists()


def load_weights(model: nn.Module, file: str | Path) -> nn.Module:
    """Load a state_dict from a file; the classifier `fc` may be missing or another one."""
    own = model.state_dict()
    saved = {k: v for k, v in state_of_model(read_state(file), file).items() if not k.startswith("fc.")}
    missing = [name for name in own if name not in saved and not name.startswith("fc.")]
    wrong = [k for k, v in saved.items() if k not in own or v.shape != own[k].shape]
    if missing or wrong:
        raise ValueError(
            f"expected weights of {type(model).__name__} in {file}; missing {missing[:3]}, unknown or of another shape "
            f"{wrong[:3]}: is it the right architecture?"
        )
    model.load_state_dict(saved, strict=False)
    return model
