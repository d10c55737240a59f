"""What a training loop of your own needs: losses, parameters, and the classifiers' refresh."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from detectors.base import AnomalyDetector
from detectors.igd.losses import IGDLosses
from detectors.igd.model import CodeMoments, IGDModel, TrainingPass
from detectors.igd.scales import Scale
from detectors.inputs import Shape, check_span
from detectors.late_buffers import evaluating


class OwnLoop(AnomalyDetector):
    """The part of IGD that `fit` is made of.

    Attributes:
        scales: Models and what they see of an image, by name.
        channels: Channels of the images.
        image_size: Side of the square images.
        chunk_size: Patches that go through the local model at once in inference.
    """

    scales: dict[str, Scale]
    channels: int
    image_size: int
    chunk_size: int

    @torch.no_grad()
    def refresh(self, loader: Iterable[Any]) -> None:
        """Set each classifier's centre, then its sigma, from the codes of all normal images in one pass.

        Args:
            loader: Batches of normal images.

        Raises:
            ValueError: If there are no images, or their shape is wrong.
        """
        self.forget_thresholds()
        moments = {name: CodeMoments() for name in self.scales}
        with evaluating(self):
            for images in self.batches(loader, self.input_shape):
                for name, scale in self.scales.items():
                    for inputs in scale.inputs(images, self.chunk_size):
                        codes = scale.codes(inputs)
                        moments[name].update(codes)
        for name, scale in self.scales.items():
            mean, mean_square = moments[name].result()
            scale.model.set_gaussian(mean, mean_square)
        self.remember_shape(images)

    def losses(self, images: Tensor, generator: torch.Generator | None = None) -> IGDLosses:
        """Return what encoders and decoders minimise, summed over scales; for a training loop of your own.

        No gradient reaches the critics' parameters. `generator_parameters()` are those to train.

        Args:
            images: Normal images (B, C, H, H).
            generator: Draws the shares of the interpolations.

        Returns:
            Scalars: total, reconstruction, classification, interpolation.

        Raises:
            NotFittedError: Before the first `refresh`.
        """
        passes = self._training_passes(images, generator)
        per_scale = [model.losses(batch) for model, batch in passes]
        by_term = zip(*per_scale, strict=True)
        sums = [torch.stack(values).sum() for values in by_term]
        return IGDLosses(*sums)

    def critic_loss(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what the critics minimise, summed over scales; no gradient reaches encoders and decoders.

        `critic_parameters()` are those to train.

        Args:
            images: Normal images (B, C, H, H).
            generator: Draws the shares of the interpolations.

        Raises:
            NotFittedError: Before the first `refresh`.
        """
        passes = self._training_passes(images, generator)
        per_scale = [model.critic_loss(batch) for model, batch in passes]
        return torch.stack(per_scale).sum()

    def batches(self, loader: Iterable[Any], shape: Shape | None = None) -> Iterator[Tensor]:
        """Yield each batch's images as every detector does; values of another scale are refused on the CPU."""
        for images in super().batches(loader, shape):
            if images.device.type == "cpu":
                check_span(images, self.data_range)
            yield images

    def generator_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of encoders and decoders."""
        parameters: list[nn.Parameter] = []
        for scale in self.scales.values():
            parameters += scale.generator_parameters()
        return parameters

    def critic_parameters(self) -> list[nn.Parameter]:
        """Parameters of the critics."""
        parameters: list[nn.Parameter] = []
        for scale in self.scales.values():
            parameters += scale.critic_parameters()
        return parameters

    @property
    def data_range(self) -> float:
        """Largest minus smallest possible pixel value."""
        first = next(iter(self.scales.values()))
        return first.model.data_range

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, H) of the images."""
        return self.channels, self.image_size, self.image_size

    def _training_passes(
        self, images: Tensor, generator: torch.Generator | None
    ) -> Iterator[tuple[IGDModel, TrainingPass]]:
        """Each scale's model with its pass over all inputs that the images make."""
        self.require_fitted()
        for checked in self.batches([images], self.input_shape):
            for scale in self.scales.values():
                inputs = torch.cat(scale.inputs(checked, self.chunk_size))
                yield scale.model, scale.training_pass(inputs, generator)
