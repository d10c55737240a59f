"""The non-linear intensity change of MedMix alone, as a kornia augmentation of whole images."""

from typing import Any, get_args

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from medmix._checks import check_choice, check_images, check_probability, check_tensor
from medmix.lesions.curves import CURVE_DIM, Nonlinear, bend_intensity, curve_coefficients


class RandomNonlinearIntensity(IntensityAugmentationBase2D):
    """Bend the intensities of each image by a random monotone Bezier curve from (0, 0) to (1, 1).

    The "non-linear intensity transformation" of the paper's section 3.2, with the curves of Models Genesis (Zhou et
    al. 2019). An inverted curve falls from (0, y(1)) to (1, 0). All channels of an image follow one curve.

    Args:
        curve: "bezier" has a closed form (control points with x2 = x1 + 1/3); "genesis" draws both control points
            freely from [0, 1]^2 and looks the curve up in a table of 1,000 points, several times slower.
        invert_p: Probability that a curve is inverted.
        p: Probability that an image is changed at all.
        same_on_batch: Draw one curve for the whole batch.
        keepdim: Return one image (C, H, W) without the batch dimension.

    Raises:
        ValueError: If the curve is unknown, a probability is not in [0, 1] or, at the call, images are not in [0, 1].
        TypeError: At the call, if the images are no floating-point tensor.

    Example:
        >>> import kornia.augmentation as K
        >>> pipeline = K.AugmentationSequential(RandomNonlinearIntensity(p=0.5), K.RandomHorizontalFlip())
        >>> pipeline(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4, 1, 32, 32])
    """

    def __init__(
        self,
        curve: Nonlinear = "bezier",
        invert_p: float = 0.5,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        check_probability(p)
        check_probability(invert_p)
        check_choice("curve", curve, get_args(Nonlinear))
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.flags = {"curve": curve, "invert_p": invert_p}

    def forward(
        self,
        input: Tensor,
        params: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Bend images (B, C, H, W) or, as kornia does, one image (C, H, W), which gets a batch dimension."""
        check_tensor(input)  # before kornia, whose errors do not say how to convert
        bent: Tensor = super().forward(input, params=params, **kwargs)
        return bent

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw uniform numbers for the control points and the inversion, (B, 4 or 5), where kornia draws."""
        rows = 1 if self.same_on_batch else batch_shape[0]
        drawn = torch.rand(rows, CURVE_DIM[self.flags["curve"]], device=self.device, dtype=self.dtype)
        return {"curve": drawn.expand(batch_shape[0], -1).clone()}

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Kornia's protocol: bend images (B, C, H, W) in [0, 1]."""
        check_images(input)
        curve = flags["curve"]
        work = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        work = work.clamp(0, 1)  # the check leaves room for rounding, the curves do not
        uniform = params["curve"].to(work)
        coefficients = curve_coefficients(curve, uniform, flags["invert_p"])
        return bend_intensity(work, curve, coefficients).to(input.dtype)
