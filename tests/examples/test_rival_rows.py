"""The loss of each self-supervised rival equals an independent formulation."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss as LightlyNTXent
from pytorch_metric_learning.losses import NTXentLoss
from rows import ROWS, Recipe, recipe_for
from torch import Tensor
from training import Pretraining, Setting


def criterion_of(row: str) -> Pretraining:
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    run = Pretraining(images, recipe_for(row, Recipe(batch_size=8), 8), Setting(init="random"))
    run.set_centres()
    return run


def terms_and_views(row: str) -> tuple[Pretraining, Tensor, Tensor, Tensor, Tensor]:
    run = criterion_of(row)
    images = run.images.float() / 255
    with torch.no_grad():
        total = run.step(images, torch.Generator().manual_seed(1))[0].total
        first, second, labels = run.step.views(images, generator=torch.Generator().manual_seed(1))
        z_a, z_b = run.step.embed(torch.cat([first, second])).chunk(2)
    return run, total, z_a, z_b, labels


def cross_entropy(run: Pretraining, z: Tensor, labels: Tensor) -> Tensor:
    head = run.step.criterion.augmentation_head
    return F.cross_entropy(F.linear(z, head.weight, head.bias), labels.repeat(2))


@pytest.mark.parametrize(("row", "views"), [("simclr", 8), ("droc", 32)])
def test_contrastive_rivals_are_nt_xent(row: str, views: int) -> None:
    _, total, z_a, z_b, _ = terms_and_views(row)
    assert len(z_a) == views
    torch.testing.assert_close(total, LightlyNTXent(temperature=0.2)(z_a, z_b), rtol=1e-6, atol=1e-6)
    instance = torch.arange(views).repeat(2)  # each rotated copy is an instance of its own
    torch.testing.assert_close(total, NTXentLoss(0.2)(torch.cat([z_a, z_b]), instance), rtol=1e-6, atol=1e-6)


def test_rotnet_is_cross_entropy_on_rotations() -> None:
    run, total, z_a, z_b, labels = terms_and_views("rotnet")
    torch.testing.assert_close(total, cross_entropy(run, torch.cat([z_a, z_b]), labels), rtol=1e-6, atol=1e-6)


def test_csi_is_nt_xent_with_shifted_instances_and_cross_entropy() -> None:
    run, total, z_a, z_b, labels = terms_and_views("csi")
    expected = LightlyNTXent(temperature=0.2)(z_a, z_b) + cross_entropy(run, torch.cat([z_a, z_b]), labels)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)


def test_rivals_see_as_many_views_per_step() -> None:
    views = {row: recipe.batch_size * recipe.num_classes for row, recipe in ROWS.items()}
    assert set(views.values()) == {64}


@pytest.mark.parametrize("row", ["csi", "droc", "rotnet"])
def test_class_k_is_turned_by_k_quarters(row: str) -> None:
    run = criterion_of(row)
    images = torch.rand(2, 3, 32, 32)
    strong = run.step.views.strong
    turned = [strong.augment_as(images, k) for k in range(4)]
    assert all(any(torch.equal(turned[k], torch.rot90(images, sign * k, (2, 3))) for sign in (1, -1)) for k in range(4))
