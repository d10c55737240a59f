"""MedMix, the paper's section 3.2: healthy images with 0 to 3 synthetic lesions, their number and their mask."""

import inspect
from collections.abc import Sequence
from typing import Any, get_args

import torch
from kornia.augmentation import MixAugmentationBaseV2
from kornia.constants import DataKey
from torch import Tensor

from medmix import _checks
from medmix._containers import MedMixOutput, in_order, join_masks, plain, wrap_as
from medmix.lesions.alterations import Alteration, ColourJitter, GaussianNoise, IntensityCurve, Warp
from medmix.lesions.blending import Blending
from medmix.lesions.compose import compose, compose_masks
from medmix.lesions.curves import Nonlinear
from medmix.lesions.drawing import draw_parameters
from medmix.lesions.options import LesionOptions
from medmix.lesions.outlines import OUTLINES, Shape
from medmix.lesions.parameters import LesionParameters
from medmix.lesions.warps import Deformation

Params = dict[str, Tensor]


class MedMix(MixAugmentationBaseV2):
    """Cut patches from other images of the batch, alter them, paste them as lesions that never touch.

    The strong augmentation distributions A_0..A_3 of the paper (section 3.2): class n is the image with n lesions, A_0
    changes nothing. The label always equals the number of connected components of the mask. Compile the
    composition, `torch.compile(mix.compose, dynamic=False)`, and draw its parameters outside.

    Args:
        num_lesions: Possible numbers of lesions, shared out evenly over a batch; an int for exactly that many.
        size: Smallest and largest lesion diameter as a fraction of the shorter image side; where that many lesions do
            not fit side by side, all lesions of that image shrink by one factor.
        shape: "blob" (irregular), "ellipse" or "rectangle".
        blending: "feathered"; "hard" replaces the pixels; "seamless" solves Poisson's equation inside the lesion: it
            meets its surroundings without an edge and differs by its texture only, as in NSA and PII.
        softness: Share of the radius over which a feathered lesion fades in, in [0, 1]; 0 is a hard edge.
        color_jitter: Brightness, contrast, saturation and hue strengths of the patches.
        noise: Smallest and largest standard deviation of the Gaussian noise on the patches.
        grey_noise: Whether all channels of a lesion get the same noise: grain without colour.
        nonlinear: Intensity curve of the patches, "bezier" or "genesis" (see `RandomNonlinearIntensity`) or None.
        inversion: Share of the lesions whose intensity curve is inverted: dark turns bright and bright dark.
        deformation: Warp of the patches, "fisheye" or "wave"; None leaves them.
        alterations: Further alterations of your own, applied after these; see `medmix.lesions.alterations`.
        p: Probability that an image is augmented at all; else its label is 0.
        same_on_batch: Draw once, for all images.
        keepdim: Accept one image (C, H, W) and return it without the batch dimension.
        data_keys: Inputs inside a kornia container: "input" and "mask" (bool, or 0 and the value that lesions get).

    Raises:
        TypeError, ValueError: If an option is of the wrong type or out of range.

    A batch of one image gives its own patches. On greyscale images (X-rays, MRI) default lesions are discs of salt and
    pepper; these settings give soft bright and dark spots:

        MedMix(size=(1 / 8, 1 / 3), softness=1.0, noise=(0.0, 0.02), inversion=0.0, color_jitter=(0.3, 0.2, 0, 0))

    Example:
        >>> images, labels, masks = MedMix()(torch.rand(8, 3, 64, 64))
        >>> labels.sort().values
        tensor([0, 0, 1, 1, 2, 2, 3, 3])
    """

    def __init__(
        self,
        num_lesions: int | Sequence[int] = (0, 1, 2, 3),
        *,
        size: tuple[float, float] = (1 / 4, 1 / 2.3),
        shape: Shape = "blob",
        blending: Blending = "feathered",
        softness: float = 0.35,
        color_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        noise: tuple[float, float] = (0.0, 0.1),
        grey_noise: bool = False,
        nonlinear: Nonlinear | None = "bezier",
        inversion: float = 0.5,
        deformation: Deformation | None = None,
        alterations: Sequence[Alteration] = (),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        data_keys: Sequence[str] = ("input",),
    ) -> None:
        _checks.check_probability(p)
        _checks.check_choice("shape", shape, get_args(Shape))
        _checks.check_data_keys(data_keys)
        super().__init__(p=p, p_batch=1.0, same_on_batch=same_on_batch, keepdim=keepdim, data_keys=list(data_keys))
        self.num_lesions = _checks.lesion_numbers(num_lesions)
        self.size = size
        self.shape = shape
        self.blending = blending
        self.softness = softness
        self.color_jitter = color_jitter
        self.noise = noise
        self.grey_noise = grey_noise
        self.nonlinear = nonlinear
        self.inversion = inversion
        self.deformation = deformation
        self.alterations = tuple(alterations)
        self.lesion_options.check()

    @property
    def lesion_options(self) -> LesionOptions:
        """How lesions are drawn and made."""
        return LesionOptions(
            num_lesions=self.num_lesions,
            size=self.size,
            outline=OUTLINES[self.shape],
            blending=self.blending,
            softness=self.softness,
            alterations=(
                Warp(self.deformation),
                ColourJitter(self.color_jitter),
                IntensityCurve(self.nonlinear, self.inversion),
                GaussianNoise(self.noise, self.grey_noise),
                *self.alterations,
            ),
            p=self.p,
            same_on_batch=self.same_on_batch,
        )

    def forward(  # type: ignore[override]
        self,
        *inputs: Tensor,
        params: Params | None = None,
        data_keys: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
    ) -> MedMixOutput | Tensor | list[Tensor]:
        """Augment a batch.

        Args:
            *inputs: Images (B, C, H, W), floats in [0, 1]; with `data_keys`, one tensor per key.
            params: Parameters of an earlier call (`mm._params`) or of `forward_parameters`, to replay them on images of
                the same shape. Not together with `generator` or `foreground`, which belong to the drawing.
            data_keys: Kornia's container protocol: what each input is; the outputs are then one per input.
            generator: Source of randomness; None is torch's global one.
            foreground: (B, 1, H, W) bool, the anatomy: lesions stay inside, and where it is too small for n lesions
                there are fewer, and the label says so.

        Returns:
            `MedMixOutput`; with "mask" among the data keys, or `data_keys` given, one output per input, as in kornia.

        Raises:
            TypeError, ValueError: If inputs are not as described; values outside [0, 1] are found on the CPU only.
        """
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        _checks.check_inputs(inputs, keys, params, generator, foreground)
        given = dict(zip(keys, inputs, strict=True))
        if params is not None and DataKey.INPUT not in keys:
            return self.transform_mask(inputs[0], params, {})
        images = plain(given[DataKey.INPUT])
        mask = plain(given[DataKey.MASK]) if DataKey.MASK in given else None
        single = self.keepdim and isinstance(images, Tensor) and images.dim() == 3
        if single:
            images = images[None]
            mask, foreground = (x[None] if isinstance(x, Tensor) else x for x in (mask, foreground))
        _checks.check_images(images)
        if mask is not None:
            _checks.check_container_mask(mask, images.shape, images.device)
        if params is None:
            params = self.forward_parameters(images.shape, generator, foreground, images.device)
        else:
            LesionParameters.from_dict(params).check_replay(self.lesion_options, images.shape)
        self._params = params
        output = self.compose(images, params)
        if mask is not None:
            output = output._replace(masks=join_masks(mask, output.masks))
        if single:
            output = MedMixOutput(*(tensor[0] for tensor in output))
        if data_keys is None and mask is None:
            return output.typed_as(given[DataKey.INPUT])
        return in_order(output, keys, inputs)

    def forward_parameters(
        self,
        batch_shape: Sequence[int],
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Params:
        """Draw everything random for images of this shape, without touching any image.

        Args:
            batch_shape: (B, C, H, W).
            generator: Source of randomness; None is torch's global one.
            foreground: (B, 1, H, W) bool, where lesions may lie.
            device: Where the parameters are wanted; drawn on the generator's device.

        Returns:
            A dict of tensors, to give back as `params=`; see `medmix.lesions.parameters.LesionParameters`.

        Raises:
            TypeError, ValueError: If the foreground does not belong to such images, or they are too small.
        """
        _checks.check_room(max(self.num_lesions), batch_shape)
        return draw_parameters(self.lesion_options, batch_shape, generator, foreground, device).as_dict()

    def compose(self, images: Tensor, params: Params) -> MedMixOutput:
        """Paste the lesions that the parameters describe."""
        parameters = LesionParameters.from_dict(params).to(images.device)
        return MedMixOutput(*compose(images, parameters, self.lesion_options))

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) of class `label`: with that many lesions each. Used by `MultiClassViews`.

        Raises:
            ValueError: If a foreground (B, 1, H, W) has no room for that many lesions, which would change the class.
        """
        _checks.check_label(label, max(self.num_lesions), more=", or a MedMix with that many num_lesions")
        if label == 0:
            return images.clone()
        params = self.forward_parameters(images.shape, generator, foreground, images.device)
        parameters = LesionParameters.from_dict(params).first(label)
        if foreground is not None:
            parameters.check_number(label)
        return compose(images, parameters, self.lesion_options)[0]

    def transform_input(self, input: Tensor, params: Params, flags: dict[str, Any]) -> Tensor:
        """Kornia's protocol: the augmented images."""
        return self.compose(input, params).images

    def transform_mask(self, input: Tensor, params: Params, flags: dict[str, Any]) -> Tensor:
        """Kornia's protocol: the given mask (B, 1, H, W), or of one image (1, H, W), joined with the lesions."""
        parameters = LesionParameters.from_dict(params)
        parameters.check_replay(self.lesion_options, parameters.shape)
        mask = plain(input)
        batch = mask[None] if isinstance(mask, Tensor) and mask.dim() == 3 else mask
        _checks.check_container_mask(batch, parameters.shape)
        lesions = compose_masks(parameters.to(mask.device), self.lesion_options)
        joined = join_masks(mask, lesions if mask.dim() == 4 else lesions[0])
        return wrap_as(joined, input)

    def __repr__(self) -> str:
        options = {name: getattr(self, name) for name in inspect.signature(MedMix).parameters}
        options["data_keys"] = ["mask" if key == DataKey.MASK else "input" for key in self.data_keys]
        arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({arguments})"
