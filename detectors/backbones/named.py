"""Build networks by name: torchvision's, timm's, or those that a file names; weights published, from a file, random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detectors.checkpoint import read_state, state_of_model

TIMM = "timm:"
PUBLISHED = ("imagenet", "DEFAULT")
HEADS = ("fc.", "classifier.", "head.", "heads.")  # classifiers: what features need not have
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Statistics = tuple[Sequence[float], Sequence[float]]


def is_name(backbone: object) -> bool:
    """Whether it is the name of a model of torchvision, or of timm behind "timm:"."""
    if not isinstance(backbone, str):
        return False
    if backbone.startswith(TIMM):
        return _timm().is_model(backbone.removeprefix(TIMM))  # type: ignore[no-any-return]
    from torchvision.models import list_models  # a second: not at `import detectors`

    return backbone in list_models()


def is_published(weights: str | Path | None) -> bool:
    """Whether weights are named, as "imagenet", rather than given as a path."""
    if not isinstance(weights, str):
        return False
    if weights in PUBLISHED:
        return True
    path = Path(weights)
    return not (path.suffix or path.exists())


def named_backbone(name: str, weights: str | Path | None = None, *, pooled: bool = False) -> nn.Module:
    """Build a network by name.

    Args:
        name: A model of torchvision ("resnet18"), or of timm ("timm:tf_efficientnet_lite0").
        weights: "imagenet" (or "DEFAULT", or another name that torchvision knows) for published ones, which are
            downloaded once; the path of a state_dict, in which the classifier may be missing; None for random ones.
        pooled: Leave out timm's classifier, so that forward returns pooled features (B, F).

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If a name of timm is given and timm is not installed.
        RuntimeError: If weights cannot be downloaded.
        ValueError: If the name is unknown, or the file is of another network.
    """
    if not is_name(name):
        raise ValueError(_unknown_name(name))
    published = str(weights) if is_published(weights) else None
    try:
        network = _timm_network(name, published, pooled) if name.startswith(TIMM) else _torchvision(name, published)
    except Exception as error:  # each library and each version of it has errors of its own for a failing download
        if published is None:
            raise
        if isinstance(error, KeyError):
            raise ValueError(
                f'expected weights of {name} by a name that torchvision knows, such as "imagenet", got {published!r}: '
                "a file needs a suffix, or must exist"
            ) from error
        raise RuntimeError(
            f"the weights of {name} could not be downloaded ({error}): pass the path of a state_dict as weights, or "
            "weights=None for random ones"
        ) from error
    if weights is not None and published is None:
        load_weights(network, weights)
    return network


def backbone_of_file(file: str | Path, *, pooled: bool = False) -> tuple[nn.Module, str]:
    """Build the network of a file {"architecture": name, "state_dict": ...}; return it and its name."""
    saved = read_state(file)
    if "architecture" not in saved:
        raise ValueError(f'expected {{"architecture": name, "state_dict": ...}} in {file}, got {list(saved)[:5]}')
    name = str(saved["architecture"])
    return named_backbone(name, file, pooled=pooled), name


def published_statistics(network: nn.Module) -> Statistics:
    """Mean and standard deviation per channel for which a named network's published weights were made."""
    settings = getattr(network, "pretrained_cfg", None)  # timm's
    if not isinstance(settings, dict):
        return IMAGENET
    return settings["mean"], settings["std"]


def load_weights(network: nn.Module, file: str | Path) -> None:
    """Load a state_dict from a file; its classifier may be missing or another one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another network.
    """
    own = network.state_dict()
    saved = state_of_model(read_state(file), file)
    fitting: dict[str, Tensor] = {}
    wrong = []
    for name, value in saved.items():
        if name in own and value.shape == own[name].shape:
            fitting[name] = value
        elif not name.startswith(HEADS):
            wrong.append(name)
    needed = [name for name in own if not name.startswith(HEADS)]
    missing = [name for name in needed if name not in saved]
    if missing or wrong:
        raise ValueError(
            f"expected weights of {type(network).__name__} in {file}; missing {missing[:3]}, unknown or of another "
            f"shape {wrong[:3]}: is it the right architecture?"
        )
    network.load_state_dict(fitting, strict=False)


def _torchvision(name: str, published: str | None) -> nn.Module:
    from torchvision.models import get_model

    weights = "DEFAULT" if published == "imagenet" else published
    return get_model(name, weights=weights)  # type: ignore[no-any-return]


def _timm_network(name: str, published: str | None, pooled: bool) -> nn.Module:
    options: dict[str, Any] = {"pretrained": published is not None}
    if pooled:
        options["num_classes"] = 0
    # Transformers take images of one size only unless they are told otherwise, each family in its own words.
    for any_size in ({"dynamic_img_size": True}, {"strict_img_size": False}):
        try:
            return _timm().create_model(name.removeprefix(TIMM), **options, **any_size)  # type: ignore[no-any-return]
        except TypeError:
            continue
    return _timm().create_model(name.removeprefix(TIMM), **options)  # type: ignore[no-any-return]


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('backbones "timm:..." need the package timm: pip install timm') from error
    return timm


def _unknown_name(name: str) -> str:
    close: list[str] = []
    if name.startswith(TIMM):
        beginning = name.removeprefix(TIMM)[:8]
        alike = _timm().list_models(f"{beginning}*")
        close = [TIMM + known for known in alike[:5]]
    hint = f"; did you mean one of {', '.join(close)}?" if close else ""
    return (
        "expected a model of torchvision (such as resnet18, wide_resnet50_2), one of timm (such as "
        f"timm:tf_efficientnet_lite0) or a file as backbone, got {name!r}{hint}"
    )
