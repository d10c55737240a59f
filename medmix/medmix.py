"""MedMix, the paper's section 3.2: healthy images with 0 to 3 synthetic lesions, their number and their mask."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from kornia.augmentation import MixAugmentationBaseV2
from kornia.constants import DataKey
from torch import Tensor

from medmix.appearance import CURVE_WIDTH, Nonlinear
from medmix.blending import Blending
from medmix.checks import check_container_mask, check_images, check_inputs, check_label, check_mask
from medmix.drawing import draw_look, draw_noise, draw_places
from medmix.lesions import sample_layout
from medmix.options import OPTIONS, check_options, check_room, lesion_numbers
from medmix.outlines import OUTLINE_WIDTH, Shape
from medmix.params import Params, check_params, drawn_shape, for_all, on_device, with_lesions
from medmix.rendering import Look, compose, compose_masks, join_masks
from medmix.warps import Deformation
from medmix.windows import Part, size_parts


class MedMixOutput(NamedTuple):
    """Augmented images (B, C, H, W), labels (B,) int64 = number of lesions, lesion masks (B, 1, H, W) bool."""

    images: Tensor
    labels: Tensor
    masks: Tensor


class MedMix(MixAugmentationBaseV2):
    """Cut patches from other images of the batch, alter them, paste them as lesions that never touch.

    The strong augmentation distributions A_0..A_3 of the paper (section 3.2): class n is the image with n lesions, A_0
    changes nothing. The label always equals the number of connected components of the mask. Compile the
    composition, `torch.compile(mix.compose, dynamic=False)`, and draw its parameters outside.

    Args:
        num_lesions: Possible numbers of lesions, shared out evenly over a batch; an int for exactly that many.
        size: Smallest and largest lesion diameter as a fraction of the shorter image side; where that many lesions do
            not fit side by side, all of an image's are made smaller.
        shape: Outline: "blob" (irregular), "ellipse" or "rectangle".
        blending: "feathered"; "hard" replaces the pixels; "seamless" solves Poisson's equation inside the lesion, so
            that it meets its surroundings without an edge and differs by its texture only, as in NSA and PII.
        softness: Share of the radius over which a feathered lesion fades in, in [0, 1]; 0 is a hard edge.
        color_jitter: Brightness, contrast, saturation and hue strengths of the patches.
        noise: Smallest and largest standard deviation of the Gaussian noise on the patches.
        nonlinear: "bezier" bends the patches' intensities by a curve in closed form, "genesis" by one with two free
                control points (see `RandomNonlinearIntensity`); None leaves them.
        deformation: Warp of the patches, "fisheye" or "wave"; None leaves them.
        p: Probability that an image is augmented at all; else its label is 0.
        same_on_batch: Draw once, for all images.
        keepdim: Accept one image (C, H, W) and return it without the batch dimension.
        data_keys: Inputs inside a kornia container: "input" and "mask" (lesions are OR-ed into given masks of 0 and 1).

    Raises:
        TypeError, ValueError: If an option is of the wrong type or out of range.

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
        nonlinear: Nonlinear | None = "bezier",
        deformation: Deformation | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        data_keys: Sequence[str] = ("input",),
    ) -> None:
        check_options(
            num_lesions=num_lesions, size=size, shape=shape, blending=blending, softness=softness,
            color_jitter=color_jitter, noise=noise, nonlinear=nonlinear, deformation=deformation, p=p,
            data_keys=data_keys,
        )  # fmt: skip
        super().__init__(p=p, p_batch=1.0, same_on_batch=same_on_batch, keepdim=keepdim, data_keys=list(data_keys))
        self.num_lesions = lesion_numbers(num_lesions)
        self.size, self.shape, self.blending, self.softness = size, shape, blending, softness
        self.color_jitter, self.noise, self.nonlinear, self.deformation = color_jitter, noise, nonlinear, deformation

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
                the same shape; they hold the drawn colours and noise. Not together with `generator` or `foreground`,
                which belong to the drawing.
            data_keys: Kornia's container protocol: what each input is; the outputs are then one per input.
            generator: Source of randomness; None is torch's global one.
            foreground: (B, 1, H, W) bool, the anatomy: lesions stay inside, and where it is too small for n lesions
                there are fewer, and the label says so.

        Returns:
            `MedMixOutput`; with "mask" among the data keys, or `data_keys` given, one output per input, as in kornia.

        Raises:
            TypeError, ValueError: If images or masks are not as described; the message tells how to mend them. Values
                outside [0, 1] are found on the CPU only: a look at a GPU's would make the host wait.
        """
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        check_inputs(inputs, keys, params, generator, foreground)
        if params is not None and DataKey.INPUT not in keys:
            return self.transform_mask(inputs[0], params, {})
        images = inputs[keys.index(DataKey.INPUT)]
        mask = inputs[keys.index(DataKey.MASK)] if DataKey.MASK in keys else None
        single = self.keepdim and isinstance(images, Tensor) and images.dim() == 3
        if single:
            images = images[None]
            mask, foreground = (x[None] if isinstance(x, Tensor) else x for x in (mask, foreground))
        check_images(images)
        if mask is not None:
            check_container_mask(mask, images.shape, images.device)
        if params is None:
            params = self.forward_parameters(images.shape, generator, foreground, images.device)
        self.check_params(params, images.shape)
        self._params = params
        output = self.compose(images, params)
        if mask is not None:
            output = output._replace(masks=join_masks(mask, output.masks))
        if single:
            output = MedMixOutput(*(t[0] for t in output))
        return output if data_keys is None and mask is None else in_order(output, keys)

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
            A dict of tensors, most of them with a row per image, to give back as `params=`.

        Raises:
            TypeError, ValueError: If the foreground does not belong to such images, or they are too small.
        """
        check_room(max(self.num_lesions), batch_shape)
        drawn_on = generator.device if generator is not None else torch.device(device or "cpu")
        batch, channels, height, width = batch_shape
        rows, slots = 1 if self.same_on_batch else batch, max(1, *self.num_lesions)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=drawn_on)

        params = draw_places(uniform, rows, slots, batch, self.num_lesions, self.p)
        params |= draw_look(uniform, rows, slots, channels, self.shape, self.color_jitter, self.noise, self.nonlinear)
        if self.same_on_batch:
            params = for_all(params, batch)
        sides = [part.side for part in self.parts(batch_shape)]
        params["noise_pool"] = draw_noise(channels * max(sides) ** 2, generator, drawn_on)
        params = {name: value.to(device or drawn_on) for name, value in params.items()}
        layout = params.pop("layout")
        if foreground is not None:
            check_mask(foreground, torch.Size(batch_shape), layout.device, "foreground")
        params["centre"], params["radius"] = sample_layout(layout, (height, width), self.size, foreground)
        params["window_sides"] = torch.tensor(sides)
        params["forward_input_shape"] = torch.tensor(batch_shape)  # as kornia's own augmentations have it
        return params

    @property
    def look(self) -> Look:
        """The options that say how lesions are made from their numbers."""
        noisy = self.noise[1] > 0
        return Look(self.shape, self.blending, self.softness, noisy, self.nonlinear, self.deformation)

    def parts(self, batch_shape: Sequence[int]) -> list[Part]:
        """How a batch (B, C, H, W) that is sorted by lesion size is worked on."""
        batch, _, height, width = batch_shape
        return size_parts(self.size, batch, not self.same_on_batch, (height, width))

    def check_params(self, params: Params, shape: torch.Size) -> None:
        """Refuse parameters that this MedMix cannot replay on images of this shape."""
        widths = {"outline": OUTLINE_WIDTH[self.shape], "curve": CURVE_WIDTH[self.nonlinear or "bezier"]}
        check_params(params, shape, [part.side for part in self.parts(shape)], widths)

    def compose(self, images: Tensor, params: Params) -> MedMixOutput:
        """Paste the lesions that the parameters describe."""
        params = on_device(params, images.device)
        return MedMixOutput(*compose(images, params, self.parts(images.shape), self.look))

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) of class `label`: with that many lesions each. Used by `MultiClassViews`.

        Lesions may lie anywhere: a foreground that holds fewer would change the class.
        """
        check_label(label, max(self.num_lesions), more=", or a MedMix with that many num_lesions")
        if label == 0:
            return images.clone()
        params = self.forward_parameters(images.shape, generator, device=images.device)
        return self.compose(images, with_lesions(params, label)).images

    def transform_input(self, input: Tensor, params: Params, flags: dict[str, Any]) -> Tensor:
        """Kornia's protocol: the augmented images."""
        return self.compose(input, params).images

    def transform_mask(self, input: Tensor, params: Params, flags: dict[str, Any]) -> Tensor:
        """Kornia's protocol: the given mask (B, 1, H, W), or of one image (1, H, W), joined with the lesions."""
        shape = drawn_shape(params)
        self.check_params(params, shape)
        batch = input[None] if isinstance(input, Tensor) and input.dim() == 3 else input
        check_container_mask(batch, shape)
        lesions = compose_masks(shape, on_device(params, input.device), self.parts(shape), self.look)
        return join_masks(input, lesions if input.dim() == 4 else lesions[0])

    def __repr__(self) -> str:
        options = {name: getattr(self, name) for name in (*OPTIONS, "p", "same_on_batch", "keepdim")}
        options["data_keys"] = ["mask" if key == DataKey.MASK else "input" for key in self.data_keys]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


def in_order(output: MedMixOutput, keys: list[DataKey]) -> Tensor | list[Tensor]:
    """Kornia's protocol: one output per data key, not in a list where it is alone."""
    outputs = [output.images if key == DataKey.INPUT else output.masks for key in keys]
    return outputs if len(outputs) > 1 else outputs[0]
