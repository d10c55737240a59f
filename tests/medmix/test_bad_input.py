"""What cannot be meant is refused with a message that says how to mend it."""

import numpy as np
import pytest
import torch

from medmix import MedMix, MultiClassViews, NeighbourPatches, NoiseClasses, RotationClasses, WeakAugmentation

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
    with pytest.raises(error, match=message):
        MedMix()(GOOD, foreground=foreground)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(2, 1, 16, 16), ValueError, "mask"),
        (torch.zeros(3, 1, 32, 32), ValueError, "mask"),
        (torch.zeros(2, 1, 32, 32, device="meta"), ValueError, "mask"),
        (np.zeros((2, 1, 32, 32)), TypeError, "mask"),
    ],
)
def test_bad_mask_in_a_container_call(mask, error, message) -> None:
    with pytest.raises(error, match=message):
        MedMix(data_keys=["input", "mask"])(GOOD, mask)


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


def test_params_of_another_batch() -> None:
    mix = MedMix()
    params = mix.forward_parameters((4, 3, 32, 32))
    with pytest.raises(ValueError, match="batch of 4"):
        mix(GOOD, params=params)


@pytest.mark.parametrize("options", [{"flip_p": 2}, {"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"ratio": (2, 1)}])
def test_bad_weak_options(options) -> None:
    with pytest.raises(ValueError, match="expected"):
        WeakAugmentation(16, **options)


def test_patches_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="smaller patch_size"):
        NeighbourPatches(20)(GOOD)
    with pytest.raises(ValueError, match="at least 1"):
        NeighbourPatches(0)


def test_rotation_of_oblong_images() -> None:
    with pytest.raises(ValueError, match="square"):
        RotationClasses()(torch.rand(2, 3, 16, 32))
