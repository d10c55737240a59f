"""OCGAN: Perera et al. 2019, "OCGAN: One-class novelty detection using GANs with constrained latent representations".

A denoising auto-encoder whose codes fill the cube (-1, 1)^d, so that *every* code decodes to a healthy image:
- latent discriminator D_l: codes E(x + n) against samples of U(-1, 1)^d (their eq. 2, l_latent);
- visual discriminator D_v: images decoded from U(-1, 1)^d against real ones (their eq. 3, l_visual);
- classifier C: rebuilt images against decoded samples; "informative negative mining" walks a sample through the cube
  by gradient steps to where C believes it least (their section 3.4);
- the encoder and decoder minimise l_latent + l_visual + 10 l_MSE (their eq. 4, lambda = 10), l_visual at the mined
  codes.

Published: 28 to 32 px, noise of std .2 on images in [-1, 1], Adam. Changed: 64 px, IGD's residual networks, betas
(.5, .9), mining from the first step on, in two steps of .1 on the sign of the gradient.
Left open by the paper, and taken here: the score is the squared error of the rebuilt image (they compare it with
discriminators' outputs and report the error).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.igd.networks import Critic, Decoder
from rivals.rival import Encoder, GenerativeRival, adam, residual_score, step

CODE_DIM = 128
MINING_STEPS = 2
MINING_RATE = 0.1
NOISE = 0.1  # of images in [0, 1]
RECONSTRUCTION_WEIGHT = 10.0


class OCGAN(GenerativeRival):
    """An auto-encoder whose whole cube of codes decodes to healthy images.

    Args:
        image_size: Side of the images in pixels.
        epochs: Passes over the healthy images.
        lr: Learning rate of Adam.
        width: Factor on the number of inner channels.
    """

    def __init__(self, image_size: int = 64, *, epochs: int = 256, lr: float = 2e-4, width: float = 1.0) -> None:
        super().__init__(image_size, epochs)
        self.encoder = nn.Sequential(Encoder(image_size, CODE_DIM, width), nn.Tanh())
        self.decoder = Decoder(image_size, code_dim=CODE_DIM, width=width)
        self.latent = nn.Sequential(
            nn.Linear(CODE_DIM, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0)
        )
        self.visual = Critic(image_size, width=width)
        self.classifier = Critic(image_size, width=width)
        betas = (0.5, 0.9)
        self.auto_encoder_optimiser = adam(self.encoder, self.decoder, lr=lr, betas=betas)
        self.discriminator_optimiser = adam(self.latent, self.visual, lr=lr, betas=betas)
        self.classifier_optimiser = adam(self.classifier, lr=lr, betas=betas)

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """The classifier, then the discriminators, then the auto-encoder, at mined codes."""
        noisy = images + NOISE * torch.randn_like(images)
        codes = self.encoder(noisy)  # (B, CODE_DIM)
        rebuilt = self.decoder(codes)
        uniform = 2 * torch.rand_like(codes) - 1

        believed = self.classifier(rebuilt.detach())
        decoded = self.decoder(uniform).detach()
        step(self.classifier_optimiser, _real(believed) + _fake(self.classifier(decoded)))

        latent = _real(self.latent(uniform)) + _fake(self.latent(codes.detach()))
        visual = _real(self.visual(images)) + _fake(self.visual(decoded))
        step(self.discriminator_optimiser, latent + visual)

        mined = self.decoder(self._mine(uniform))
        error = (rebuilt - images).square().mean()
        fooled = _real(self.latent(codes)) + _real(self.visual(mined))
        step(self.auto_encoder_optimiser, fooled + RECONSTRUCTION_WEIGHT * error)
        return {"reconstruction": error, "latent": latent, "visual": visual}

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error per image and per pixel."""
        return residual_score(images, self.decoder(self.encoder(images)))

    def _mine(self, codes: Tensor) -> Tensor:
        """Walk codes (B, CODE_DIM) to where the classifier believes their images least; they stay in the cube."""
        for _ in range(MINING_STEPS):
            codes = codes.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.classifier(self.decoder(codes)).sum(), codes)
            codes = (codes - MINING_RATE * gradient.sign()).clamp(-1, 1)
        return codes.detach()


def _real(logits: Tensor) -> Tensor:
    return F.softplus(-logits).mean()  # binary cross-entropy with label 1


def _fake(logits: Tensor) -> Tensor:
    return F.softplus(logits).mean()  # with label 0
