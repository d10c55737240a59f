"""Pictures of the example scripts: heat maps over images, and embeddings in two dimensions."""

from pathlib import Path

import matplotlib
import torch
from data import Dataset
from sklearn.manifold import TSNE
from torch import Tensor, nn

matplotlib.use("Agg")  # a file is written, no window is opened
import matplotlib.pyplot as plt


@torch.inference_mode()
def save_heat_maps(detector: nn.Module, data: Dataset, file: Path, columns: int = 10, photographs: bool = True) -> None:
    """Draw normal (left) and abnormal (right) test images over their masks and heat maps.

    Without `photographs` the figure can be published where the images must not. The colours run from the median to the
    maximum of all shown maps, the same for every image.
    """
    half = columns // 2
    rows = torch.cat([evenly(data.labels == 0, half), evenly(data.labels == 1, half)])
    images = data.test[rows].float() / 255
    device = next(detector.parameters()).device
    prediction = detector(images.to(device))
    maps = prediction.anomaly_map.cpu()
    panels = {"image": images.permute(0, 2, 3, 1)} if photographs else {}
    if data.masks is not None:
        panels["lesion (truth)"] = data.masks[rows, 0].float()
    panels["heat map"] = maps[:, 0]
    scores = [f"{score:.3g}" for score in prediction.pred_score.tolist()]
    draw_panels(panels, scores, half, file, limits=(maps.median(), maps.max()))


def evenly(chosen: Tensor, count: int) -> Tensor:
    """Indices of `count` chosen rows, spread evenly over all chosen ones."""
    indices = chosen.nonzero()[:, 0]
    return indices[torch.linspace(0, len(indices) - 1, count).long()]


def draw_panels(
    panels: dict[str, Tensor],
    scores: list[str],
    num_normal: int,
    file: Path,
    limits: tuple[Tensor, Tensor],
) -> None:
    """One row per kind of panel, one column per image; the scores stand below."""
    size = (1.3 * len(scores), 1.35 * len(panels) + 0.5)
    figure, axes = plt.subplots(len(panels), len(scores), figsize=size, squeeze=False)
    for row, (name, panel) in enumerate(panels.items()):
        for column, axis in enumerate(axes[row]):
            is_map = name == "heat map"
            low, high = (float(limits[0]), float(limits[1])) if is_map else (0.0, 1.0)
            axis.imshow(panel[column].numpy(), cmap="inferno" if is_map else "gray", vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    for column, score in enumerate(scores):
        axes[0, column].set_title("normal" if column < num_normal else "abnormal", fontsize=9)
        axes[-1, column].set_xlabel(f"score {score}", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(file, dpi=110)
    plt.close(figure)


@torch.inference_mode()
def save_tsne(backbone: nn.Module, data: Dataset, file: Path, device: str) -> None:
    """Draw the pooled features of the test images in two dimensions, as the paper's Fig. 1 does."""
    batches = (data.test[rows].float().to(device) / 255 for rows in torch.arange(len(data.test)).split(64))
    features = torch.cat([backbone(images).cpu() for images in batches])
    points = TSNE(init="pca", random_state=0, perplexity=min(30, len(data.test) / 4)).fit_transform(features.numpy())
    figure, axis = plt.subplots(figsize=(4, 4))
    for label, name, colour in ((0, "normal", "tab:blue"), (1, "abnormal", "tab:red")):
        own = points[(data.labels == label).numpy()]
        axis.scatter(own[:, 0], own[:, 1], s=8, color=colour, label=name)
    axis.set(xticks=[], yticks=[])
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
