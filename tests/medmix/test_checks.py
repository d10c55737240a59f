"""What cannot be meant is refused with a message that says how to mend it."""

import re

import numpy as np
import pytest
import torch

from medmix import (
    CutMixClasses,
    MedMix,
    MultiClassViews,
    NeighbourPatches,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
    WeakAugmentation,
)

GOOD = torch.rand(2, 3, 32, 32)


BAD_IMAGES = {
    "uint8": ((GOOD * 255).byte(), TypeError, "/ 255"),
    "8-bit floats": (GOOD * 255, ValueError, "divide 8-bit values by 255"),
    "normalised": (GOOD * 4 - 2, ValueError, "normalise after"),
    "NaN": (GOOD.clone().index_fill_(0, torch.tensor([1]), float("nan")), ValueError, "NaN"),
    "infinite": (GOOD / 0, ValueError, "values from"),
    "channels last": (GOOD.permute(0, 2, 3, 1), ValueError, "permute"),
    "numpy": (GOOD.numpy(), TypeError, "from_numpy"),
    "one image": (GOOD[0], ValueError, r"x\[None\]"),
    "video": (GOOD[None], ValueError, "leading dimensions"),
    "empty": (GOOD[:0], ValueError, "at least one"),
    "list": ([GOOD], TypeError, "torch.Tensor"),
}


USERS = {
    "MedMix": MedMix(),
    "WeakAugmentation": WeakAugmentation(16),
    "MultiClassViews": MultiClassViews(MedMix, WeakAugmentation(16)),
    "NeighbourPatches": NeighbourPatches(8),
    "NoiseClasses": NoiseClasses(),
    "RotationClasses": RotationClasses(),
}


@pytest.mark.parametrize("user", USERS.values(), ids=USERS.keys())
@pytest.mark.parametrize("case", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images(user, case) -> None:
    images, error, message = case
    with pytest.raises(error, match=message):
        user(images)


@pytest.mark.parametrize(
    ("foreground", "error", "message"),
    [
        (torch.ones(2, 1, 32, 32), TypeError, "> 0.5"),
        (np.ones((2, 1, 32, 32), dtype=bool), TypeError, "bool tensor"),
        (torch.ones(2, 3, 32, 32, dtype=torch.bool), ValueError, "one channel"),
        (torch.ones(2, 1, 16, 16, dtype=torch.bool), ValueError, "size"),
        (torch.ones(2, 1, 32, 32, dtype=torch.bool, device="meta"), ValueError, "images.device"),
    ],
)
def test_bad_foreground(foreground, error, message) -> None:
    for draw in (MedMix(), lambda x, foreground: MedMix().forward_parameters(x.shape, foreground=foreground)):
        with pytest.raises(error, match=message):
            draw(GOOD, foreground=foreground)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(2, 1, 16, 16), ValueError, "mask"),
        (torch.zeros(3, 1, 32, 32), ValueError, "mask"),
        (torch.zeros(32, 32), ValueError, "mask"),
        (torch.zeros(2, 1, 32, 32, device="meta"), ValueError, "mask"),
        (np.zeros((2, 1, 32, 32)), TypeError, "mask"),
    ],
)
def test_bad_mask_in_a_container_call(mask, error, message) -> None:
    with pytest.raises(error, match=message):
        MedMix(data_keys=["input", "mask"])(GOOD, mask)
    if not (isinstance(mask, torch.Tensor) and mask.device.type == "meta"):  # a replay goes to the mask's device
        with pytest.raises(error, match=message):
            MedMix()(mask, params=MedMix().forward_parameters(GOOD.shape), data_keys=["mask"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"p": 2}, ValueError, "probability"),
        ({"p": -0.1}, ValueError, "probability"),
        ({"size": (0.5, 1.5)}, ValueError, "larger than the image"),
        ({"size": (32, 64)}, ValueError, "fractions"),
        ({"size": (0.5, 0.25)}, ValueError, "smallest <= largest"),
        ({"size": 0.25}, TypeError, "size"),
        ({"num_lesions": -1}, ValueError, "num_lesions"),
        ({"num_lesions": ()}, ValueError, "num_lesions"),
        ({"num_lesions": (0, 1.5)}, TypeError, "num_lesions"),
        ({"num_lesions": True}, TypeError, "num_lesions"),
        ({"shape": "star"}, ValueError, "blob"),
        ({"softness": 1.5}, ValueError, "softness"),
        ({"color_jitter": (0.4, 0.4)}, ValueError, "color_jitter"),
        ({"color_jitter": (-0.4, 0.4, 0.4, 0.1)}, ValueError, "color_jitter"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.9)}, ValueError, "hue"),
        ({"noise": (0.1, 0.0)}, ValueError, "noise"),
        ({"nonlinear": "gamma"}, ValueError, "bezier"),
        ({"deformation": "twirl"}, ValueError, "fisheye"),
        ({"data_keys": ["input", "keypoints"]}, ValueError, "data_keys"),
        ({"data_keys": ["mask"]}, ValueError, "data_keys"),
        ({"num_lesions": 3.0}, TypeError, "num_lesions"),
        ({"num_lesions": None}, TypeError, "num_lesions"),
        ({"noise": 0.1}, TypeError, "noise"),
        ({"noise": (0.1,)}, TypeError, "noise"),
        ({"color_jitter": 0.4}, ValueError, "color_jitter"),
        ({"color_jitter": (1.5, 0.4, 0.4, 0.1)}, ValueError, "color_jitter"),
        ({"softness": None}, ValueError, "softness"),
        ({"p": "a"}, ValueError, "probability"),
        ({"size": "ab"}, TypeError, "size"),
    ],
)
def test_bad_options(options, error, message) -> None:
    with pytest.raises(error, match=message):
        MedMix(**options)


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="sizes"):
        MedMix(sizes=(0.1, 0.2))


def test_too_many_lesions_for_the_image() -> None:
    with pytest.raises(ValueError, match="at least 30 x 30 pixels for 100 lesions"):
        MedMix(100)(torch.rand(1, 1, 20, 40))


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (2, 1, 32, 32), (2, 3, 64, 32), (2, 3, 16, 16)])
def test_params_of_other_images(shape) -> None:
    mix = MedMix()
    with pytest.raises(ValueError, match=re.escape(f"expected images {shape}")):
        mix(GOOD, params=mix.forward_parameters(shape))
    with pytest.raises(ValueError, match="replay all"):
        mix(GOOD, params={})
    weak = WeakAugmentation(16)
    with pytest.raises(ValueError, match="params for 2 images"):
        weak(GOOD, params=weak.forward_parameters((4, 3, 32, 32)))


@pytest.mark.parametrize("other", [{"size": (0.1, 0.2)}, {"shape": "ellipse"}, {"nonlinear": "genesis"}], ids=str)
def test_params_of_another_medmix(other) -> None:
    mix, drawn = MedMix(), MedMix(**other).forward_parameters(GOOD.shape)
    with pytest.raises(ValueError, match="same size, shape and nonlinear"):
        mix(GOOD, params=drawn)
    with pytest.raises(ValueError, match="same size, shape and nonlinear"):
        mix(torch.zeros(2, 1, 32, 32), params=drawn, data_keys=["mask"])


def test_a_replay_draws_nothing() -> None:
    mix = MedMix()
    params = mix.forward_parameters(GOOD.shape)
    for drawing in ({"generator": torch.Generator()}, {"foreground": torch.ones(2, 1, 32, 32, dtype=torch.bool)}):
        with pytest.raises(ValueError, match="either params or"):
            mix(GOOD, params=params, **drawing)


@pytest.mark.parametrize("key", ["class", "bbox", "keypoints"])
def test_data_keys_that_lesions_do_not_change(key: str) -> None:
    with pytest.raises(ValueError, match="'input' and 'mask'"):
        MedMix()(GOOD, torch.zeros(2), data_keys=["input", key])


def test_a_mask_alone_can_only_be_replayed() -> None:
    with pytest.raises(ValueError, match="expected params"):
        MedMix()(torch.zeros(2, 1, 32, 32), data_keys=["mask"])
    with pytest.raises(ValueError, match="replay all"):
        MedMix()(torch.zeros(2, 1, 32, 32), params={}, data_keys=["mask"])


def test_a_batch_shape_of_three_numbers() -> None:
    with pytest.raises(ValueError, match="batch_shape"):
        MedMix().forward_parameters((3, 32, 32))


def test_inputs_that_belong_to_no_data_key() -> None:
    with pytest.raises(TypeError, match="got 2"):
        MedMix()(GOOD, torch.zeros(2, 1, 32, 32))
    with pytest.raises(TypeError, match="got 0"):
        MedMix()()
    with pytest.raises(TypeError, match="expected 2"):
        MedMix(data_keys=["input", "mask"])(GOOD)


def test_classes_that_an_augmentation_does_not_have() -> None:
    for strong in (MedMix((0, 1)), MedMix(2)):
        with pytest.raises(ValueError, match="num_lesions"):
            MultiClassViews(strong, WeakAugmentation(16))(GOOD)
    for strong in (RotationClasses, PermutationClasses, NoiseClasses, CutMixClasses):
        with pytest.raises(ValueError, match=r"0\.\.3, got 4"):
            MultiClassViews(strong, WeakAugmentation(16), num_classes=5)(GOOD)
    for number in (0, 4.0):
        with pytest.raises(ValueError, match="at least one class"):
            MultiClassViews(MedMix, WeakAugmentation(16), num_classes=number)
    for step in (-1, 0, "a"):
        with pytest.raises(ValueError, match="step"):
            NoiseClasses(step)


@pytest.mark.parametrize(
    "options",
    [
        {"flip_p": 2}, {"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"ratio": (2, 1)}, {"color_jitter": (0.4, 0.4)},
        {"color_jitter": (-5, 0.4, 0.4, 0.4)}, {"size": 0}, {"size": 16.0}, {"size": (16, -1)}, {"scale": 0.5},
        {"ratio": 1.0}, {"ratio": (0, 1)},
    ],
    ids=str,
)  # fmt: skip
def test_bad_weak_options(options) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        WeakAugmentation(**({"size": 16} | options))


def test_patches_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="smaller patch_size"):
        NeighbourPatches(20)(GOOD)
    for patch_size in (0, 1, 2.5):
        with pytest.raises(ValueError, match="at least 2"):
            NeighbourPatches(patch_size)


def test_rotation_of_oblong_images() -> None:
    with pytest.raises(ValueError, match="square"):
        RotationClasses()(torch.rand(2, 3, 16, 32))
