"""What was drawn for the lesions of a batch: moved, cut to fewer lesions, sorted, and checked before a replay."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from medmix.lesions.alterations import Drawn
from medmix.lesions.options import LesionOptions


@dataclass(frozen=True)
class LesionParameters:
    """What was drawn for the lesions of a batch: B images with K slots, of which each image shows the first few.

    Attributes:
        num_lesions: (B,) int64.
        batch_prob: (B,), 1 where the image is augmented, kornia's name.
        size_order: (B, K) int64: image `size_order[i, k]` has the i-th smallest lesion in slot k.
        centre: (B, K, 2) in pixels, row and column.
        radius: (B, K) in pixels, 0 where a lesion found no place.
        donor_offset: (B, K) int64, how many rows further on the donor lies.
        donor_corner: (B, K, 2) in [0, 1), where the patch is cut from the donor.
        outline: (B, K, D).
        noise_pool: (P,) standard normal numbers.
        window_sides: Sides of the windows, on the host.
        forward_input_shape: The images' (B, C, H, W), on the host, kornia's name.
        altered: What the alterations drew, (B, K, ...) each.
    """

    num_lesions: Tensor
    batch_prob: Tensor
    size_order: Tensor
    centre: Tensor
    radius: Tensor
    donor_offset: Tensor
    donor_corner: Tensor
    outline: Tensor
    noise_pool: Tensor
    window_sides: Tensor
    forward_input_shape: Tensor
    altered: Drawn

    @classmethod
    def from_dict(cls, params: dict[str, Tensor]) -> "LesionParameters":
        """From kornia's form, one dict; what is no field belongs to an alteration."""
        if not set(_FIELDS) <= set(params):
            raise ValueError(f"expected params of forward_parameters, got only {sorted(params)}: replay all of them")
        own = {name: params[name] for name in _FIELDS}
        altered = {name: value for name, value in params.items() if name not in _FIELDS}
        return cls(**own, altered=altered)

    def as_dict(self) -> dict[str, Tensor]:
        """Kornia's form, one dict."""
        own = {name: getattr(self, name) for name in _FIELDS}
        return own | self.altered

    @property
    def shape(self) -> torch.Size:
        """The images' (B, C, H, W)."""
        return torch.Size(self.forward_input_shape.tolist())

    def to(self, device: torch.device) -> "LesionParameters":
        """The parameters where the images are: kornia's containers draw on the CPU."""
        on_device = {name: getattr(self, name).to(device) for name in _ON_DEVICE}
        altered = {name: value.to(device) for name, value in self.altered.items()}
        return replace(self, **on_device, altered=altered)

    def first(self, number: int) -> "LesionParameters":
        """The same draw with the first `number` lesions in every image: a lesion's place and size do not tell it."""
        kept = {name: getattr(self, name)[:, :number] for name in _PER_LESION}
        altered = {name: value[:, :number] for name, value in self.altered.items()}
        count = torch.full_like(self.num_lesions, number)
        always = torch.ones_like(self.batch_prob)
        return replace(self, **kept, altered=altered, num_lesions=count, batch_prob=always)

    def sorted_by_size(self) -> "tuple[Lesions, Tensor]":
        """The lesions slot by slot from small to large, (K, B, ...) each, and their numbers (B,)."""
        batch, slots = self.radius.shape
        device = self.radius.device
        slot = torch.arange(slots, device=device)
        image = torch.arange(batch, device=device)[:, None].expand(-1, slots)
        count = self.num_lesions * (self.batch_prob > 0.5)
        present = (slot < count[:, None]) & (self.radius > 0)  # (B, K)
        lesions = Lesions(
            image,
            present,
            self.centre,
            self.radius,
            self.donor_offset,
            self.donor_corner,
            self.outline,
            self.altered,
        )
        order = self.size_order.T  # (K, B)
        return lesions.map(lambda value: value[order, slot[:, None]]), present.sum(dim=1)

    def check_replay(
        self,
        options: LesionOptions,
        shape: torch.Size,
    ) -> None:
        """Refuse parameters that were not drawn for images of this shape, or by a MedMix of other options."""
        if self.shape != shape:
            raise ValueError(
                f"expected images {tuple(self.shape)}, for which the params were drawn, got {tuple(shape)}: "
                "replay on images of the same shape"
            )
        sides = [band.side for band in options.bands(shape)]
        if self.window_sides.tolist() != sides or not self._drawn_as(options):
            raise ValueError(
                "expected params drawn by a MedMix of the same size, shape and nonlinear, got those of another: "
                "replay with the one that drew them, or with one of the same options"
            )

    def check_number(self, number: int) -> None:
        """Refuse parameters in which a foreground left an image fewer lesions than this; the host waits for them."""
        found = (self.radius > 0).sum(dim=1)
        if (found < number).any():
            row = int(found.argmin())
            least = int(found[row])
            raise ValueError(
                f"expected a foreground with room for {number} lesions in every image, got room for {least} in image "
                f"{row}: use smaller lesions (size=) or fewer classes, or leave such images out"
            )

    def _drawn_as(self, options: LesionOptions) -> bool:
        """Whether these options would draw parameters of the same names and sizes for a lesion."""

        def zeros(count: int) -> Tensor:
            return torch.zeros(1, 1, count)

        channels = self.shape[1]
        one_lesion = options.draw_look(zeros, channels) | options.draw_further(zeros, channels)
        expected = {name: value.shape[2:] for name, value in one_lesion.items()}
        mine = self.altered | {"outline": self.outline}
        found = {name: value.shape[2:] for name, value in mine.items()}
        return expected.items() <= found.items()


_FIELDS = tuple(field.name for field in fields(LesionParameters) if field.name != "altered")
_ON_HOST = ("window_sides", "forward_input_shape")
_ON_DEVICE = tuple(name for name in _FIELDS if name not in _ON_HOST)
_PER_LESION = ("size_order", "centre", "radius", "donor_offset", "donor_corner", "outline")


@dataclass(frozen=True)
class Lesions:
    """Lesions that are to be made, (N, ...) or (K, B, ...) each.

    Attributes:
        image: The row that a lesion belongs to.
        present: Bool; an absent lesion changes nothing.
        centre, radius, donor_offset, donor_corner, outline, altered: Those of `LesionParameters`.
    """

    image: Tensor
    present: Tensor
    centre: Tensor
    radius: Tensor
    donor_offset: Tensor
    donor_corner: Tensor
    outline: Tensor
    altered: Drawn

    def map(self, change: Callable[[Tensor], Tensor]) -> "Lesions":
        """The lesions with every tensor changed."""
        return Lesions(
            image=change(self.image),
            present=change(self.present),
            centre=change(self.centre),
            radius=change(self.radius),
            donor_offset=change(self.donor_offset),
            donor_corner=change(self.donor_corner),
            outline=change(self.outline),
            altered={name: change(value) for name, value in self.altered.items()},
        )

    def band(
        self,
        first: int,
        last: int,
    ) -> "Lesions":
        """Those (K * N, ...) of the rows `first` to `last`, of lesions (K, B, ...)."""
        return self.map(lambda value: value[:, first:last].flatten(0, 1))

    def in_slot(self, slot: int) -> "Lesions":
        """Those (B, ...) of one slot, of lesions (K, B, ...)."""
        return self.map(lambda value: value[slot])

    def rows(
        self,
        first: int,
        last: int,
    ) -> "Lesions":
        """Those (N, ...) of some rows, of lesions (B, ...)."""
        return self.map(lambda value: value[first:last])
