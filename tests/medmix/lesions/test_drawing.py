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


@pytest.mark.parametrize("same_on_batch", [True, False])
def test_the_order_and_number_of_draws(same_on_batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They decide what a seed gives."""
    asked = []

    def uniform(*sizes: int) -> Tensor:
        asked.append(sizes)
        return torch.full(sizes, 0.5)

    monkeypatch.setattr("medmix.lesions.drawing.uniform_source", lambda generator, device: uniform)
    params = MedMix((0, 3), p=0.5, same_on_batch=same_on_batch).forward_parameters((5, 2, 32, 48))
    rows = 1 if same_on_batch else 5
    assert asked[:7] == [(rows,), (1,), (rows, 3), (rows,), (rows, 17, 3, 4), (rows, 3), (rows, 3, 2)]
    colour, _, *rest = (sizes[2] for sizes in asked[7:])  # the second is the outline's
    assert (colour, rest) == (4, [3, 1, 1, 4])  # warp, noise's strength and place, curve
    assert (params["batch_prob"] == 0).all()  # .5 is not below .5


def test_the_pool_of_noise_has_room_for_the_largest_window() -> None:
    params = MedMix(1, size=(0.1, 0.5)).forward_parameters((6, 2, 64, 64))
    sides = params["window_sides"].tolist()
    assert len(set(sides)) == 3
    assert params["noise_pool"].shape == (2**16 + 2 * max(sides) ** 2,)


def test_parameters_go_where_they_are_wanted() -> None:
    """Drawn on the generator's device; "meta" stands for an accelerator."""
    params = MedMix(2).forward_parameters((2, 1, 32, 32), generator=generator(0), device="meta")
    stay = {"window_sides", "forward_input_shape"}
    assert all(value.is_meta != (name in stay) for name, value in params.items())
    assert not any(value.is_meta for value in MedMix(2).forward_parameters((2, 1, 32, 32)).values())


def test_a_wrong_foreground_is_named() -> None:
    with pytest.raises((TypeError, ValueError), match=r"^expected foreground\b"):
        MedMix(2).forward_parameters((2, 1, 32, 32), foreground=torch.ones(2, 1, 32, 31, dtype=torch.bool))
