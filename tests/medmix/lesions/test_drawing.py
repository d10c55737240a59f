"""What is drawn: donors, classes, generators, replays."""

import pytest
import torch
from hypothesis import given
from medmix_cases import SEEDS, batches, generator, mixes
from torch import Tensor

from medmix import MedMix, RotationClasses

OFF: dict[str, object] = {"color_jitter": (0, 0, 0, 0), "noise": (0, 0), "nonlinear": None, "softness": 0}


def test_all_other_images_are_donors() -> None:
    mix, x = MedMix(1, **OFF), torch.arange(8.0)[:, None, None, None].expand(-1, 1, 16, 16) / 8
    seen = {
        (row, round(float(value) * 8))
        for seed in range(60)
        for row, image in enumerate(mix(x, generator=generator(seed)).images)
        for value in image.unique()
    }
    assert seen == {(row, donor) for row in range(8) for donor in range(8)}


@given(mixes(), batches(), SEEDS)
def test_replay_equals(mix: MedMix, x: Tensor, seed: int) -> None:
    first = mix(x, generator=generator(seed))
    for second in (
        mix(x, params=mix._params),
        mix(x, generator=generator(seed)),
        mix(x, params=mix.forward_parameters(x.shape, generator=generator(seed))),
    ):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@given(mixes(), batches(), SEEDS)
def test_a_generator_leaves_the_global_one_alone(mix: MedMix, x: Tensor, seed: int) -> None:
    before = torch.get_rng_state()
    mix(x, generator=generator(seed))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_one_counts() -> None:
    x = torch.rand(4, 3, 32, 32)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(MedMix(3)(x).images)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@given(batches(), SEEDS)
def test_patches_come_from_other_images(x: Tensor, seed: int) -> None:
    source = MedMix(3).forward_parameters(x.shape, generator=generator(seed))["donor_offset"]
    assert ((source % len(x) != 0) | (len(x) == 1)).all()


@pytest.mark.parametrize("strong", [MedMix(), MedMix(same_on_batch=True), RotationClasses()])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_class_comes_to_every_row(strong: MedMix, batch: int) -> None:
    """Also where a batch is smaller than the number of classes."""
    x = torch.rand(batch, 1, 16, 16)
    labels = torch.stack([strong(x, generator=generator(seed)).labels for seed in range(400)])
    for row in labels.T:
        assert (row.bincount(minlength=4) > 60).all()


def test_same_on_batch_puts_the_same_lesions_everywhere() -> None:
    _, labels, masks = MedMix(3, same_on_batch=True)(torch.rand(5, 3, 32, 32))
    assert labels.tolist() == [3] * 5
    assert torch.equal(masks, masks[:1].expand_as(masks))
