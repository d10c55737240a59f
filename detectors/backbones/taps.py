"""Read maps inside a network: by hooks on named submodules, or through timm's own `forward_intermediates`."""

import difflib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

DEFAULT_LAYERS = ("layer1", "layer2", "layer3")  # torchvision's and timm's ResNets: strides 4, 8 and 16


def tapped(network: nn.Module, layers: Sequence[str] | None, *, named: bool) -> nn.Module:
    """Return a module whose output holds the maps: of these layers, or of the network's own forward.

    Args:
        network: Any network.
        layers: Names of submodules, or None for what forward returns.
        named: Whether the network was built by name, so that its forward is known to return no maps.

    Raises:
        ValueError: If only some of the layers exist, or none does and forward returns no maps; the message lists names.
    """
    if named and is_timm(network):
        return _timm_stages(network, layers)
    if not layers:
        return network
    known = dict(network.named_modules())
    unknown = [name for name in layers if name not in known]
    if unknown and (named or len(unknown) < len(layers)):
        raise ValueError(unknown_layers(network, unknown))
    if unknown:
        # No name is known: the network returns the maps itself, and `as_maps` compares the names with what it returns.
        return network
    return TappedBackbone(network, layers)


def unknown_layers(network: nn.Module, unknown: Sequence[str]) -> str:
    """Say which layers do not exist, and which do."""
    known = [name for name, _ in network.named_modules() if name]
    children = ", ".join(name for name, _ in network.named_children())
    close: dict[str, None] = {}
    for name in unknown:
        matches = difflib.get_close_matches(name, known, n=3)
        close |= dict.fromkeys(matches)
    hint = f"; the closest names are {', '.join(close)}" if close else ""
    return f"expected layers among the backbone's submodules ({children}, ...), got unknown {list(unknown)}{hint}"


class TappedBackbone(nn.Module):
    """A backbone that stops after the last of the named submodules and returns all their outputs by name."""

    def __init__(self, backbone: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the backbone until every layer has been seen."""
        maps: dict[str, Tensor] = {}
        # Hooks lie on modules that all threads share: each takes what its own thread computes.
        compiling = torch.compiler.is_compiling()
        thread = 0 if compiling else threading.get_ident()

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not compiling and threading.get_ident() != thread:
                    return
                maps[name] = output[0] if isinstance(output, tuple) else output  # attention blocks return tuples
                if not compiling and len(maps) == len(self.layers):
                    raise _AllSeen  # an exported graph drops the unused rest by itself

            return hook

        handles = []
        for name in self.layers:
            module = self.backbone.get_submodule(name)
            handles.append(module.register_forward_hook(keep(name)))
        try:
            self.backbone(images)
        except _AllSeen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        unseen = [name for name in self.layers if name not in maps]
        if unseen:
            raise ValueError(f"expected layers that the backbone's forward runs, got {unseen}, which it does not")
        return maps


class _AllSeen(Exception):  # noqa: N818  (no error: ends a forward pass early)
    """Every wanted map is there."""


class TimmStages(nn.Module):
    """A network of timm that returns the maps of some of its stages by name, always as (B, C, rows, columns)."""

    def __init__(self, backbone: Any, stages: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        names = [name for name, _ in stages_of(backbone)]
        # timm returns the maps in the order of the network.
        self.layers = tuple(sorted(stages, key=names.index))
        self.indices = [names.index(name) for name in self.layers]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the network up to the last of the stages."""
        maps = self.backbone.forward_intermediates(
            images, indices=self.indices, intermediates_only=True, output_fmt="NCHW", stop_early=True
        )
        return dict(zip(self.layers, maps, strict=True))


def is_timm(network: nn.Module) -> bool:
    """Whether it is a network of timm that gives its maps by itself."""
    return hasattr(network, "forward_intermediates") and hasattr(network, "feature_info")


def stages_of(network: Any) -> list[tuple[str, int]]:
    """Name and stride of each stage of a network of timm."""
    info = network.feature_info
    stages = info if isinstance(info, list) else info.info
    return [(stage["module"], stage["reduction"]) for stage in stages]


def stages_like_resnet(network: nn.Module) -> list[str]:
    """Names of the stages that stand for ResNet's layers 1 to 3.

    They are the last ones of strides 4, 8 and 16; of a transformer, whose blocks share one grid, those after a quarter,
    a half and three quarters of its depth.
    """
    stages = stages_of(network)
    depth = len(stages)
    strides = {stride for _, stride in stages}
    if len(strides) == 1:
        depths = [depth * quarter // 4 for quarter in (1, 2, 3)]
        last_blocks = dict.fromkeys(max(reached, 1) - 1 for reached in depths)  # each once
        return [stages[block][0] for block in last_blocks]
    last = {stride: name for name, stride in stages}
    return [last[stride] for stride in (4, 8, 16) if stride in last]


def _timm_stages(network: nn.Module, layers: Sequence[str] | None) -> nn.Module:
    """Let timm read its own stages; tap what is no stage."""
    names = [name for name, _ in stages_of(network)]
    known = dict(network.named_modules())
    if not layers:
        return TimmStages(network, stages_like_resnet(network))
    has_any = any(name in known for name in layers)
    if tuple(layers) == DEFAULT_LAYERS and not has_any:
        return TimmStages(network, stages_like_resnet(network))
    if all(name in names for name in layers):
        return TimmStages(network, layers)
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"{unknown_layers(network, unknown)}; the network's stages are {', '.join(names)}")
    return TappedBackbone(network, layers)


def folded(backbone: nn.Module, layers: Sequence[str]) -> nn.Module | None:
    """The part of the backbone that the layers need, with folded batch-norms; None if torch.fx cannot trace it."""
    from torch.fx.experimental.optimization import fuse
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        needed = create_feature_extractor(backbone, list(layers), suppress_diff_warning=True)
        return fuse(needed.eval(), inplace=True)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return None
