"""MSACL pre-training as a LightningModule: the loss and the views are plain modules, so any trainer drives them.

python examples/lightning_module.py --data DIR --epochs 20
"""

import argparse
import sys

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from detectors import ImageFiles
from medmix import MedMix, MultiClassViews, WeakAugmentation
from msacl_loss import MSACLLoss


class MSACL(lightning.LightningModule):
    """A ResNet18 with its projection head, trained by equations (3), (5) and (8)."""

    def __init__(self, size, lr):
        super().__init__()
        self.lr = lr
        self.encoder = resnet18(num_classes=128)
        self.views = MultiClassViews(MedMix(), WeakAugmentation(size), num_classes=4)
        self.criterion = MSACLLoss(embedding_dim=128, num_classes=4)

    def training_step(self, images):
        """Both views of a batch (B, C, H, W) through encoder and loss."""
        view_a, view_b, labels = self.views(images)
        z_a, z_b = self.encoder(torch.cat([view_a, view_b])).chunk(2)
        terms = self.criterion(z_a, z_b, labels)
        self.log_dict({name: value.detach() for name, value in terms._asdict().items()}, prog_bar=True)
        return terms.total

    def configure_optimizers(self):
        """The loss's heads are trained with the encoder."""
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, help="folder of healthy images")
parser.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
parser.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
args = parser.parse_args()
lightning.seed_everything(0, verbose=False)

loader = DataLoader(ImageFiles(args.data, args.size), batch_size=32, shuffle=True)
model = MSACL(args.size, lr=0.01)
drawn = (model.views(images) for images in loader)
model.criterion.fit_centres(model.encoder, ((view, labels) for *pair, labels in drawn for view in pair))
trainer = lightning.Trainer(max_epochs=args.epochs, logger=False, enable_checkpointing=False)
trainer.fit(model, loader)
model.encoder.fc = nn.Identity()
torch.save(model.encoder.state_dict(), "encoder.pt")
