"""f-AnoGAN: Schlegl et al. 2019, "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks".

1. A WGAN-GP learns healthy images: the critic minimises D(G(z)) - D(x) + 10 (|grad D| - 1)^2 and the generator -D(G(z))
   (their section 2.1).
2. The encoder E is trained by izi_f (their eq. 4) with G and D frozen:
   L = 1/n |x - G(E(x))|^2 + kappa/n_d |f(x) - f(G(E(x)))|^2, f the critic's last inner layer, kappa = 1.
3. The score is that same sum (their eq. 7); the map is |x - G(E(x))| (their eq. 9).

Published: 64 x 64 patches of OCT scans, 128-d codes, Adam with lr 1e-4 for the GAN and RMSProp with lr 5e-5 for the
encoder, batch 64, 100,000 generator steps and 50,000 encoder steps. Changed: IGD's residual networks, Adam for the
encoder, too, one critic step for each of the generator's (trainings are short), 2/3 of the epochs for the GAN and 1/3
for the encoder, as many epochs and as large a rate as the command line says; the critic has layer norm, as WGAN-GP
advises.
"""

import torch
from torch import Tensor

from detectors.igd.networks import Critic, Decoder
from rivals.rival import Encoder, GenerativeRival, adam, critic_loss, step


class FAnoGAN(GenerativeRival):
    """A generator of healthy images and an encoder into its codes.

    Args:
        image_size: Side of the images in pixels.
        epochs: Passes over the healthy images, two thirds of them for the GAN.
        lr: Learning rate of Adam.
        width: Factor on the number of inner channels.
        kappa: Weight of the feature residual.

    Raises:
        ValueError: If there are fewer than two epochs.
    """

    def __init__(
        self, image_size: int = 64, *, epochs: int = 1000, lr: float = 1e-4, width: float = 1.0, kappa: float = 1.0
    ) -> None:
        if epochs < 2:
            raise ValueError(f"expected at least 2 epochs, one for the GAN and one for its encoder, got {epochs}")
        super().__init__(image_size, epochs)
        self.kappa = kappa
        self.generator = Decoder(image_size, width=width)
        self.critic = Critic(image_size, width=width)
        self.encoder = Encoder(image_size, width=width)
        self.code_dim = self.generator.linear.in_features
        self.generator_optimiser = adam(self.generator, lr=lr)
        self.critic_optimiser = adam(self.critic, lr=lr)
        self.encoder_optimiser = adam(self.encoder, lr=lr, betas=(0.9, 0.999))

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """One step of the GAN, or of the encoder in the last third of the epochs."""
        if len(self.history) < 2 * self.epochs // 3:
            losses = self._gan_step(images)
            return losses | {"izi_f": losses["critic"].new_tensor(float("nan"))}
        self.generator.eval()  # its batch-norm is frozen, too
        residual, features = self._residuals(images)
        loss = residual.mean() + self.kappa * features.mean()
        step(self.encoder_optimiser, loss)
        return {"critic": loss.new_tensor(float("nan")), "izi_f": loss}

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and kappa times the feature residual; the map is the absolute residual."""
        residual, features = self._residuals(images)
        rebuilt = self.generator(self.encoder(images))
        return residual + self.kappa * features, (images - rebuilt).abs().mean(1, keepdim=True)

    def _gan_step(self, images: Tensor) -> dict[str, Tensor]:
        codes = torch.randn(len(images), self.code_dim, device=images.device)
        made = self.generator(codes)
        loss = critic_loss(self.critic, images, made)
        step(self.critic_optimiser, loss)
        step(self.generator_optimiser, -self.critic(made).mean())
        return {"critic": loss}

    def _residuals(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared residual of pixels and of the critic's features, (B,) each."""
        rebuilt = self.generator(self.encoder(images))
        pixels = (images - rebuilt).square().flatten(1).mean(1)
        difference = self.critic.blocks(images) - self.critic.blocks(rebuilt)
        return pixels, difference.square().flatten(1).mean(1)
