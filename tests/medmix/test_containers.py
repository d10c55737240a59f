"""MedMix in kornia's containers."""

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given
from kornia.constants import DataKey
from medmix_cases import SEEDS, batches, generator, mixes
from monai.data import DataLoader
from monai.transforms import Compose, Flipd, MapTransform, ScaleIntensityd
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from medmix import (
    MedMix,
    RotationClasses,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_in_a_container_masks_are_joined(dtype: torch.dtype) -> None:
    mix = MedMix(2, data_keys=["input", "mask"])
    container = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), mix, data_keys=["input", "mask"])
    x, mask = torch.rand(3, 3, 32, 32), torch.zeros(3, 1, 32, 32)
    mask[:, :, :4, :4] = 1
    images, joined = container(x, mask.to(dtype))
    changed = (images != x.flip(3)).any(1, keepdim=True)
    assert changed.flatten(1).any(1).all()
    assert (joined[:, :, :4, -4:] == 1).all()
    assert (joined[changed] == 1).all()


def test_one_image_with_keepdim() -> None:
    x, everywhere = torch.rand(3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    mix = MedMix((2, 3), keepdim=True)
    image, label, mask = mix(x, foreground=everywhere)
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert int(label) in (1, 2, 3)
    assert mix(x, data_keys=["input"]).shape == x.shape
    image, mask = MedMix(2, keepdim=True, data_keys=["input", "mask"])(x, everywhere)
    assert image.shape == x.shape
    assert torch.equal(mask, everywhere)
    container = K.AugmentationSequential(
        MedMix(2, data_keys=["input", "mask"]), data_keys=["input", "mask"], keepdim=True
    )
    image, mask = container(x, torch.zeros(1, 32, 32))
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert mask.any()


def test_kornias_own_names_of_data_keys() -> None:
    mix = MedMix(2, data_keys=[DataKey.INPUT, DataKey.MASK])
    assert mix(torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))[1].flatten(1).any(1).all()


@given(mixes(), batches(), SEEDS)
def test_a_mask_alone_is_replayed(mix: MedMix, x: Tensor, seed: int) -> None:
    expected = mix(x, generator=generator(seed)).masks
    given_mask = torch.rand(expected.shape, generator=generator(seed)) < 0.1
    actual = mix(given_mask, params=mix._params, data_keys=["mask"])
    assert torch.equal(actual, expected | given_mask)


@pytest.mark.parametrize("value", [1, 3, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_lesions_have_the_given_masks_own_value(value: int, dtype: torch.dtype) -> None:
    x, mask = torch.rand(4, 3, 32, 32), torch.zeros(4, 1, 32, 32, dtype=dtype)
    mask[:2, :, :5, :5] = value
    mix = MedMix(2, data_keys=["input", "mask"])
    _, joined = mix(x, mask)
    assert set(joined.unique().tolist()) == {0, value}
    assert joined.dtype == dtype
    assert (joined == value).flatten(1).any(dim=1).all()
    assert torch.equal(joined, mix(mask, params=mix._params, data_keys=["mask"]))


@pytest.mark.parametrize("values", [(1, 2), (0.5, 1), (-1, 1), (-1, 0)])
def test_masks_of_several_values_are_refused(values: tuple[float, float]) -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 0, :2] = torch.tensor(values)
    with pytest.raises(ValueError, match=r"one positive value.*mask > 0"):
        MedMix(2, data_keys=["input", "mask"])(torch.rand(2, 3, 32, 32), mask)


V2 = {
    "flip": v2.RandomHorizontalFlip(p=1.0),
    "affine": v2.RandomAffine(degrees=(30, 30), translate=(0.1, 0.1)),
    "crop": v2.RandomCrop(72),
    "resized crop": v2.RandomResizedCrop(72, scale=(0.3, 0.5)),
    "normalise": v2.Normalize([0.5] * 3, [0.2] * 3),
}


@pytest.mark.parametrize("transform", V2.values(), ids=V2.keys())
@pytest.mark.parametrize("typed", [True, False], ids=["Image", "Tensor"])
@pytest.mark.parametrize("single", [True, False], ids=["one image", "batch"])
def test_torchvision_v2_acts_on_images_and_masks_alike(transform: v2.Transform, typed: bool, single: bool) -> None:
    """Lesions of white on black images: where the image is bright, the mask is set, also after the transform."""
    torch.manual_seed(0)
    x = torch.zeros(2, 3, 96, 96)
    x[1] = 1
    mix = MedMix(3, color_jitter=(0, 0, 0, 0), noise=(0, 0), nonlinear=None, blending="hard", keepdim=True)
    images, _, masks = mix(tv_tensors.Image(x) if typed else x)
    assert isinstance(masks, tv_tensors.Mask)
    assert isinstance(images, tv_tensors.Image) == typed
    if single:
        images, masks = (tv_tensors.wrap(t[0], like=t) if isinstance(t, tv_tensors.TVTensor) else t[0] for t in
                         (images, masks))  # fmt: skip
    else:
        images, masks = (tv_tensors.wrap(t[:1], like=t) if isinstance(t, tv_tensors.TVTensor) else t[:1] for t in
                         (images, masks))  # fmt: skip
    changed_images, changed_masks = transform(images, masks)
    assert changed_masks.shape[-2:] == changed_images.shape[-2:]
    bright = changed_images.mean(dim=-3, keepdim=True) > (0.5 if changed_images.min() >= 0 else 0)
    agreeing = (bright == changed_masks).float().mean()
    assert agreeing > 0.97  # the image is interpolated, the mask is not


def test_one_image_comes_back_as_it_came() -> None:
    image, _, mask = MedMix(2, keepdim=True)(tv_tensors.Image(torch.rand(3, 32, 32)))
    assert (type(image), type(mask)) == (tv_tensors.Image, tv_tensors.Mask)
    assert (image.shape, mask.shape) == ((3, 32, 32), (1, 32, 32))
    outputs = RotationClasses()(tv_tensors.Image(torch.rand(2, 3, 32, 32)))
    assert (type(outputs.images), type(outputs.masks)) == (tv_tensors.Image, tv_tensors.Mask)


def test_in_kornias_protocol_types_come_back_as_they_came() -> None:
    x, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    mix = MedMix(2, data_keys=["input", "mask"])
    assert [type(t) for t in mix(x, mask)] == [Tensor, Tensor]
    typed = mix(tv_tensors.Image(x), tv_tensors.Mask(mask))
    assert [type(t) for t in typed] == [tv_tensors.Image, tv_tensors.Mask]
    assert type(mix(tv_tensors.Mask(mask), params=mix._params, data_keys=["mask"])) is tv_tensors.Mask
    assert type(mix(tv_tensors.Image(x), params=mix._params, data_keys=["input"])) is tv_tensors.Image


class MedMixd(MapTransform):
    """MedMix as a MONAI dictionary transform, for a batch (after the loader) or one image with `keepdim=True`."""

    def __init__(self, mix: MedMix, image: str = "image", mask: str = "mask", label: str = "label") -> None:
        super().__init__([image])
        self.mix, self.names = mix, (image, label, mask)

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        images = torch.as_tensor(data[self.names[0]]).as_subclass(Tensor)  # MONAI's MetaTensor would be slow
        return {**data, **dict(zip(self.names, self.mix(images), strict=True))}


def test_as_a_monai_dictionary_transform() -> None:
    pipeline = Compose([ScaleIntensityd("image"), MedMixd(MedMix(keepdim=True, num_lesions=2)),
                        Flipd(["image", "mask"], spatial_axis=1)])  # fmt: skip
    loaded = DataLoader([{"image": torch.rand(3, 32, 32) * 255, "name": str(i)} for i in range(4)], batch_size=4)
    batch = MedMixd(MedMix(2))(next(iter(loaded)) | {"image": torch.rand(4, 3, 32, 32)})
    assert batch["mask"].flatten(1).any(1).all()
    assert batch["label"].tolist() == [2] * 4
    one = pipeline({"image": torch.rand(3, 32, 32) * 255})
    assert one["image"].shape == (3, 32, 32)
    assert one["mask"].shape == (1, 32, 32)
    assert one["mask"].any()
    assert int(one["label"]) == 2


class MedMixStep(v2.Transform):
    """MedMix as a step of a torchvision v2 pipeline, on a batch or, with `keepdim=True`, on one image."""

    def __init__(self, mix: MedMix) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.mix(images)


def test_as_a_step_of_torchvision_v2() -> None:
    pipeline = v2.Compose([v2.ToDtype(torch.float32, scale=True), MedMixStep(MedMix(2, keepdim=True)),
                           v2.RandomHorizontalFlip(p=1.0), v2.Normalize([0.5] * 3, [0.2] * 3)])  # fmt: skip
    for shape in ((4, 3, 32, 32), (3, 32, 32)):
        pictures = tv_tensors.Image(torch.randint(0, 256, shape, dtype=torch.uint8))
        images, labels, masks = pipeline(pictures)
        assert images.shape == shape
        assert (labels == 2).all()
        before = (pictures.flip(-1) / 255 - 0.5) / 0.2
        changed = (images - before).abs().amax(dim=-3, keepdim=True) > 1e-4
        assert not (changed & ~masks).any()
        assert changed.any()


def test_kornias_protocol_called_by_hand() -> None:
    mix, x = MedMix(), torch.rand(2, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    assert torch.equal(mix.transform_input(x, params, {}), mix(x, params=params).images)
