"""ADGAN: Liu et al. 2020, "Photoshopping colonoscopy video frames", ISBI (arXiv 1910.10345).

Only the paper's abstract was at hand, which prints no equation and no rate; the first paragraph is what it says.

A dual GAN with two generators and two discriminators, trained on frames without polyps only: one generator maps images
to codes, the other codes to images, and each has a critic for what it makes. It "photoshops" a lesion away, so the
difference between the frame and the rebuilt one is the score.

Taken here: WGAN-GP for codes against N(0, 1) and for images against healthy ones, and 10 times the absolute error of
both cycles, image -> code -> image and code -> image -> code; one critic step for each of the generators' (trainings
are short), 128-d codes, IGD's residual networks, Adam, score and map by the absolute difference.
"""

import torch
from torch import Tensor, nn

from detectors.igd.networks import Critic, Decoder
from rivals.rival import Encoder, GenerativeRival, adam, critic_loss, step

CODE_DIM = 128
CYCLE_WEIGHT = 10.0


class ADGAN(GenerativeRival):
    """Two generators, images to codes and codes to images, with a critic each.

    Args:
        image_size: Side of the images in pixels.
        epochs: Passes over the healthy images.
        lr: Learning rate of Adam.
        width: Factor on the number of inner channels.
    """

    def __init__(self, image_size: int = 64, *, epochs: int = 256, lr: float = 1e-4, width: float = 1.0) -> None:
        super().__init__(image_size, epochs)
        self.encoder = Encoder(image_size, CODE_DIM, width)
        self.decoder = Decoder(image_size, code_dim=CODE_DIM, width=width)
        self.image_critic = Critic(image_size, width=width)
        self.code_critic = nn.Sequential(
            nn.Linear(CODE_DIM, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0)
        )
        self.critic_optimiser = adam(self.image_critic, self.code_critic, lr=lr)
        self.generator_optimiser = adam(self.encoder, self.decoder, lr=lr)

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """A step of both critics, and one of both generators."""
        drawn = torch.randn(len(images), CODE_DIM, device=images.device)
        codes = self.encoder(images)
        made = self.decoder(drawn)
        critics = critic_loss(self.image_critic, images, made) + critic_loss(self.code_critic, drawn, codes)
        step(self.critic_optimiser, critics)
        cycle = (images - self.decoder(codes)).abs().mean() + (drawn - self.encoder(made)).abs().mean()
        believed = self.image_critic(made).mean() + self.code_critic(codes).mean()
        step(self.generator_optimiser, CYCLE_WEIGHT * cycle - believed)
        return {"critics": critics, "cycle": cycle}

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean absolute difference per image and per pixel."""
        difference = (images - self.decoder(self.encoder(images))).abs().mean(1, keepdim=True)
        return difference.mean((1, 2, 3)), difference
