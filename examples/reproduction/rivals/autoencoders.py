"""DAE and the MS-SSIM auto-encoder: what cannot be rebuilt is abnormal.

DAE: Masci et al. 2011, "Stacked convolutional auto-encoders for hierarchical feature extraction", ICANN. The loss is
E(theta) = 1 / 2n sum (x_i - y_i)^2 (their section 2), on inputs of which a random share of the pixels is set to zero
(30 % here; they try 0 to 50 %). Published: 7 x 7 and 5 x 5 layers with max-pooling on MNIST and CIFAR10, trained by
gradient descent layer after layer.

MS-SSIM: Chen et al. 2021 (IGD, arXiv 2101.10043) compare with the auto-encoder trained by their reconstruction loss
alone, which is eq. (11) of the MSACL paper: rho |x - x~| + (1 - rho) (1 - MS-SSIM), rho = .15. Published: 256 px,
Adam with lr 1e-4, 256 epochs.

Changed in both: 64 px instead of 256, the residual networks of IGD, all layers trained at once by Adam, and as many
epochs as the command line says. The scores are the losses themselves, without corruption.
"""

import torch
from torch import Tensor

from detectors.igd.losses import reconstruction_error, residual_map
from detectors.igd.networks import Decoder
from rivals.rival import Encoder, GenerativeRival, adam, residual_score, step


class AutoEncoder(GenerativeRival):
    """Encoder and decoder of IGD's make, trained to rebuild healthy images.

    Args:
        image_size: Side of the images in pixels.
        epochs: Passes over the healthy images.
        lr: Learning rate of Adam.
        width: Factor on the number of inner channels.
    """

    def __init__(self, image_size: int = 64, *, epochs: int = 256, lr: float = 1e-4, width: float = 1.0) -> None:
        super().__init__(image_size, epochs)
        self.encoder = Encoder(image_size, width=width)
        self.decoder = Decoder(image_size, width=width)
        self.optimiser = adam(self.encoder, self.decoder, lr=lr)

    def rebuild(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, H) as the auto-encoder sees them, same shape."""
        return self.decoder(self.encoder(images))


class DenoisingAutoEncoder(AutoEncoder):
    """DAE: the squared error of an image rebuilt from a corrupted one."""

    corruption = 0.3  # share of the pixels set to zero

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """One step on the squared error."""
        kept = torch.rand_like(images[:, :1]) >= self.corruption  # (B, 1, H, H)
        loss = (self.rebuild(images * kept) - images).square().mean() / 2
        step(self.optimiser, loss)
        return {"reconstruction": loss}

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error per image and per pixel."""
        return residual_score(images, self.rebuild(images))


class MSSSIMAutoEncoder(AutoEncoder):
    """The auto-encoder of equation (11) alone."""

    rho = 0.15

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """One step on equation (11)."""
        loss = reconstruction_error(images, self.rebuild(images), rho=self.rho, data_range=1.0).mean()
        step(self.optimiser, loss)
        return {"reconstruction": loss}

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Equation (11) per image, and spread over its pixels."""
        rebuilt = self.rebuild(images)
        error = reconstruction_error(images, rebuilt, rho=self.rho, data_range=1.0)
        return error, residual_map(images, rebuilt, rho=self.rho, data_range=1.0)
