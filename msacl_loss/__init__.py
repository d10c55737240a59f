"""The MSACL loss, equations (1) to (9)."""

from importlib.metadata import version

from msacl_loss.centres import centre_distances, estimate_centres
from msacl_loss.checks import NotFittedError
from msacl_loss.contrastive import calibrated_contrastive_loss
from msacl_loss.loss import MSACLLoss
from msacl_loss.terms import LossTerms, augmentation_loss, centring_loss, position_loss

__version__ = version("msacl")

__all__ = [
    "LossTerms",
    "MSACLLoss",
    "NotFittedError",
    "__version__",
    "augmentation_loss",
    "calibrated_contrastive_loss",
    "centre_distances",
    "centring_loss",
    "estimate_centres",
    "position_loss",
]
