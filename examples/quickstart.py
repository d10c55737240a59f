"""The whole method without a download: python3 run.py quickstart, or python examples/quickstart.py --seed 0.

Healthy images are crops of a fundus photograph (left half to train on, right half to test on); test lesions are painted
below, not by MedMix. Prints AUROC of PaDiM on a random encoder, on the same with the batch-norm statistics of the
healthy crops, and after MSACL pre-training; saves quickstart.png (crops, true lesions, heat maps).
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from skimage.data import retina
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvision.models import resnet18
from torchvision.transforms.v2.functional import resize
from torchvision.utils import save_image

from detectors import PaDiM, evaluate, map_limits, overlay
from medmix import MedMix, MultiClassViews, WeakAugmentation
from msacl_loss import MSACLLoss


def crops(photograph, count, size=64, side=192):
    """Random windows that lie wholly on the retina, (count, 3, size, size) in [0, 1]."""
    windows = []
    while len(windows) < count:
        top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in photograph.shape[1:])
        window = photograph[:, top : top + side, left : left + side]
        if window[0].min() > 60:  # the black surround is darker than that
            windows.append(resize(window, [size, size], antialias=True))
    return torch.stack(windows).float() / 255


def paint_lesions(images, count=50):
    """Faint bright or dark blobs: where smooth noise, weighted by the distance to a random place, is high."""
    noise = F.interpolate(torch.rand(count, 1, 10, 10, generator=generator), size=(64, 64), mode="bicubic")
    place = 0.25 + 0.5 * torch.rand(count, 2, 1, generator=generator)
    reach = 0.08 + 0.08 * torch.rand(count, 1, 1, 1, generator=generator)
    squared = ((torch.arange(64) + 0.5) / 64 - place) ** 2  # (count, 2, 64)
    height = torch.exp(-(squared[:, :1, :, None] + squared[:, 1:, None]) / (2 * reach**2)) * (0.5 + noise)
    opacity = ((height - 0.55) / 0.15).clamp(0, 1)
    bright = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    exudate, haemorrhage = torch.tensor([[245, 225, 130], [110, 20, 15]])[..., None, None] / 255
    return torch.lerp(images, torch.where(bright, exudate, haemorrhage), 0.4 * opacity), opacity > 0.5


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()
torch.manual_seed(args.seed)
generator = torch.Generator().manual_seed(args.seed)
left, right = torch.from_numpy(retina()).permute(2, 0, 1).tensor_split((705,), dim=2)
healthy, test = crops(left, 256), crops(right, 100)
masks = torch.zeros(100, 1, 64, 64, dtype=torch.bool)
test[50:], masks[50:] = paint_lesions(test[50:])
backbone = resnet18()
backbone.fc = nn.Identity()
encoder = nn.Sequential(backbone, nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
untrained = copy.deepcopy(backbone)
update_bn(healthy.split(16), backbone)
calibrated = copy.deepcopy(backbone)
views = MultiClassViews(MedMix(), WeakAugmentation(64), num_classes=4)  # 0 to 3 lesions, in two weak views each
criterion = MSACLLoss(embedding_dim=128, num_classes=4)
criterion.fit_centres(encoder, ((v, labels) for x in healthy.split(16) for *ab, labels in [views(x)] for v in ab))
optimiser = torch.optim.SGD([*encoder.parameters(), *criterion.parameters()], 0.03, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.epochs * 16)
for epoch in range(args.epochs):
    for rows in torch.randperm(256).split(16):
        view_a, view_b, labels = views(healthy[rows])
        z_a, z_b = encoder(torch.cat([view_a, view_b])).chunk(2)
        total = criterion(z_a, z_b, labels).total  # no patch pairs: term (9) is 0
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
    accurate = criterion.augmentation_logits(z_a).argmax(1) == labels
    print(f"epoch {epoch + 1}: loss {total:.2f}, accuracy of the classes {accurate.float().mean():.2f}", flush=True)
update_bn(healthy.split(16), backbone)
for name, network in {"random": untrained, "batch-norm calibrated": calibrated, "MSACL": backbone}.items():
    detector = PaDiM(network.eval(), generator=torch.Generator().manual_seed(args.seed)).fit([healthy])
    values = evaluate(detector, [(test, torch.arange(100) // 50, masks)])
    print(f"{name:<22} image AUROC {values['image_auroc']:.3f}  pixel AUROC {values['pixel_auroc']:.3f}")
shown = [0, 12, 24, 36, 49, 50, 62, 74, 86, 99]  # the first five are healthy
maps = detector(test[shown]).anomaly_map
heat = torch.stack([overlay(*pair, map_limits(maps)) for pair in zip(test[shown], maps, strict=True)])
picture = torch.cat([test[shown], masks[shown].expand(-1, 3, -1, -1), heat])
save_image(F.interpolate(picture, scale_factor=2), "quickstart.png", nrow=10)
