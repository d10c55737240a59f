"""Draw MedMix's classes on real images, as the paper's Fig. 3 does.

    python examples/gallery.py                       # crops of the photograph that scikit-image ships
    python examples/gallery.py --data DIR --size 256

One row per image and outline: the healthy image, the same draw with one, two and three lesions, and their mask. All
rows but the last leave out the intensity curve and most of the noise, which MedMix has by default.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torchvision.transforms.v2 import functional as tvf

from detectors import ImageFiles
from medmix import MedMix

QUIET = {"nonlinear": None, "noise": (0.0, 0.02), "color_jitter": (0.4, 0.4, 0.4, 0.03)}  # as a lesion has them
OUTLINES = {
    "blob": MedMix(3, **QUIET),
    "blob, small": MedMix(3, **QUIET | {"size": (1 / 12, 1 / 5), "color_jitter": (0.6, 0.4, 0.4, 0.03)}),
    "seamless": MedMix(3, **QUIET | {"blending": "seamless", "color_jitter": (0.4, 0.8, 0.4, 0.03)}),
    "ellipse": MedMix(3, shape="ellipse", **QUIET),
    "rectangle, hard": MedMix(3, shape="rectangle", blending="hard", **QUIET),
    "fisheye": MedMix(3, deformation="fisheye", **QUIET),
    "defaults": MedMix(3),
}


def retina_crops(count, size, side=192):
    """Random windows that lie wholly on scikit-image's healthy retina, (count, 3, size, size)."""
    from skimage.data import retina

    photograph = torch.from_numpy(retina()).permute(2, 0, 1)
    windows = []
    while len(windows) < count:
        top = int(torch.randint(photograph.shape[1] - side + 1, ()))
        left = int(torch.randint(photograph.shape[2] // 2 - side + 1, ()))
        window = photograph[:, top : top + side, left : left + side]
        if window[0].min() > 60:  # the black surround is darker than that
            windows.append(tvf.resize(window, [size, size], antialias=True))
    return torch.stack(windows).float() / 255


sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder of healthy images; the retina without")
parser.add_argument("--out", type=Path, default=Path("gallery.png"), help="(%(default)s)")
parser.add_argument("--size", type=int, default=128, help="side in pixels (%(default)s)")
args = parser.parse_args()
torch.manual_seed(0)

healthy = ImageFiles(args.data, args.size) if args.data else retina_crops(24, args.size)
rows = torch.randperm(len(healthy))[: 2 * len(OUTLINES)].tolist()
images = torch.stack([healthy[row] for row in rows])

figure, axes = plt.subplots(len(OUTLINES), 5, figsize=(6.5, 1.35 * len(OUTLINES)))
for row, (name, mix) in enumerate(OUTLINES.items()):
    params = mix.forward_parameters(images.shape)  # one draw, shown with 0 to 3 of its lesions
    outputs = [mix(images, params=params | {"num_lesions": torch.full((len(images),), n)}) for n in range(4)]
    panels = [output.images for output in outputs] + [outputs[3].masks.float().expand(-1, 3, -1, -1)]
    for axis, panel in zip(axes[row], panels, strict=True):
        axis.imshow(panel[row % len(images)].permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
    axes[row, 0].set_ylabel(name, fontsize=7)
for axis, title in zip(axes[0], ["0 lesions", "1", "2", "3", "mask"], strict=True):
    axis.set_title(title, fontsize=8)
figure.tight_layout(pad=0.3)
figure.savefig(args.out, dpi=100)
print(f"saved {args.out}")
