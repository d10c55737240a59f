"""MedMix inside a kornia pipeline: images and masks go through flips, lesions and rotations together.

python examples/kornia_pipeline.py --images DIR
"""

import argparse
import sys

import kornia.augmentation as K
import torch
from torchvision.utils import save_image

from detectors import ImageFiles
from medmix import MedMix

sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", required=True, help="folder of healthy images")
args = parser.parse_args()
torch.manual_seed(0)

keys = ["input", "mask"]
lesions = MedMix(2, data_keys=keys)
pipeline = K.AugmentationSequential(K.RandomHorizontalFlip(), lesions, K.RandomRotation(20.0), data_keys=keys)
images = torch.stack(list(ImageFiles(args.images, 128))[:8])
augmented, masks = pipeline(images, torch.zeros(len(images), 1, 128, 128))
save_image(torch.cat([images, augmented, masks.expand(-1, 3, -1, -1)]), "kornia_pipeline.png", nrow=len(images))
print(f"saved kornia_pipeline.png; lesions cover {masks.mean():.0%} of the images")
