"""The checks one by one: what is right passes, the first value that is not is refused, and the words name it."""

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from msacl_loss import (
    MSACLLoss,
    augmentation_loss,
    calibrated_contrastive_loss,
    centre_distances,
    centring_loss,
    checks,
    estimate_centres,
    position_loss,
)

ROWS, LABELS, CENTRES = torch.eye(4), torch.tensor([0, 0, 1, 1]), torch.zeros(2, 4)
HALF = torch.full((4, 4), 0.5)
INF = torch.full((4, 4), math.inf)
META = torch.zeros(4, 4, device="meta")
FAR = torch.tensor([0, 0, 1, 9])


def refused(words: str, error: type[Exception] = ValueError) -> AbstractContextManager[object]:
    """A refusal whose message begins with these words."""
    return pytest.raises(error, match="^" + re.escape(words))


def test_contrastive_options() -> None:
    for positive in ("paper", "nll", "decoupled"):
        for implementation in ("auto", "dense", "streaming"):
            checks.check_contrastive_options(1e-9, 1.0, positive, implementation)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with refused(f"expected a finite temperature > 0, got {temperature}"):
            checks.check_contrastive_options(temperature, 2.0, "paper", "auto")
    for alpha in (0.999, math.inf, math.nan):
        with refused(f"expected alpha >= 1, got {alpha}: "):
            checks.check_contrastive_options(0.2, alpha, "paper", "auto")
    with refused("expected positive to be 'paper', 'nll' or 'decoupled', got 'none'"):
        checks.check_contrastive_options(0.2, 2.0, "none", "auto")
    with refused("expected implementation to be 'auto', 'dense' or 'streaming', got 'fast'"):
        checks.check_contrastive_options(0.2, 2.0, "paper", "fast")


def test_whole_numbers() -> None:
    checks.check_whole(rows=1, columns=7)
    for value in (0, -1, 1.0, "1", None):
        with refused(f"expected columns as a whole number >= 1, got {value!r}"):
            checks.check_whole(rows=1, columns=value)


def test_options_of_the_loss() -> None:
    for switch in (True, False, "auto"):
        checks.check_loss_options(switch, switch, "concat", True)
        checks.check_loss_options(switch, switch, "difference", False)
    with refused("expected gather_distributed to be True, False or 'auto', got 'yes'"):
        checks.check_loss_options("yes", "auto", "concat", True)
    with refused("expected validate to be True, False or 'auto', got 1"):
        checks.check_loss_options("auto", 1, "concat", True)
    with refused("expected position_input to be 'difference' or 'concat', got 'sum'"):
        checks.check_loss_options("auto", "auto", "sum", True)
    with refused("expected normalize to be True or False, got 'auto'"):
        checks.check_loss_options("auto", "auto", "concat", "auto")


def test_centres_inside_the_sphere() -> None:
    inside = torch.tensor([[1 + checks.NORM_SLACK, 0.0], [0.0, 0.0]], dtype=torch.float64)
    checks.check_inside_sphere(inside)
    with refused("expected centres of norm <= 1, means of unit vectors, got one of norm 1.01"):
        checks.check_inside_sphere(torch.tensor([[0.0, 0.0], [0.5, 0.8775]]))


def test_which_values_are_checked() -> None:
    assert checks.checks_values("auto", ROWS)
    assert not checks.checks_values("auto", META)
    assert checks.checks_values(True, META)
    assert not checks.checks_values(False, ROWS)


def test_finite_rows() -> None:
    checks.check_finite("z", ROWS)
    checks.check_finite("z", torch.full((2, 2), 3e38))  # whose sum is infinite
    spoilt = torch.zeros(14, 2)
    spoilt[3:, 1] = math.nan
    with refused("expected finite z, got NaN or infinity in rows [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]: "):
        checks.check_finite("z", spoilt)
    with refused("expected z with values, got a meta tensor"):
        checks.check_finite("z", META)


def test_range_of_classes() -> None:
    checks.check_range("labels", torch.empty(0, dtype=torch.int64), 2)
    checks.check_range("labels", torch.tensor([0]), 1)
    checks.check_range("labels", LABELS, 2)
    for bad, got in (([-1, 0], "-1..0"), ([0, 2], "0..2")):
        with refused(f"expected labels in 0..1, got {got}"):
            checks.check_range("labels", torch.tensor(bad), 2)


def views(**changed: object) -> None:
    arguments = {"z_a": ROWS, "z_b": ROWS, "labels": LABELS, "centres": CENTRES, "validate": "auto", "smallest": 2}
    checks.check_views(**(arguments | changed))


def pairs(*changed: Tensor) -> None:
    checks.check_patch_pairs((*changed, *(ROWS, ROWS, LABELS)[len(changed) :]), 4, "auto")


def features(first: object, second: object) -> None:
    checks.check_features((first, second), 4, 4, "auto")


def rows(**changed: object) -> None:
    arguments = {"name": "z", "rows": ROWS, "classes_name": "labels", "classes": LABELS, "count": 2, "validate": "auto"}
    checks.check_rows(**(arguments | changed))


def test_what_is_right_passes() -> None:
    views()
    views(z_a=ROWS[:2], z_b=ROWS[:2], labels=LABELS[:2])
    views(z_a=INF, z_b=INF, labels=FAR, centres=CENTRES.log(), validate=False)
    pairs()
    pairs(ROWS, ROWS, torch.tensor([0, 1, 2, 7]))
    checks.check_patch_pairs((INF, INF, FAR), 4, False)
    pairs(ROWS[:1], ROWS[:1], LABELS[:1])
    features(ROWS, ROWS)
    checks.check_features(None, None, 4, "auto")
    checks.check_features((INF, INF), 4, 4, False)
    rows()
    rows(rows=ROWS[:1], classes=LABELS[:1])
    rows(rows=INF, classes=FAR, validate=False)


CALLS: dict[str, Callable[[], object]] = {
    "expected centres of shape (C, D), got (4,)": lambda: views(centres=CENTRES[0]),
    "expected z_a of shape (N, 4), got (4, 3)": lambda: views(z_a=ROWS[:, :3]),
    "expected z_b of shape (N, 4), got (4, 3)": lambda: views(z_b=ROWS[:, :3]),
    "expected both views in one shape, got z_a (4, 4) and z_b (3, 4)": lambda: views(z_b=ROWS[:3]),
    "expected labels of shape (4,)": lambda: views(labels=LABELS[:3]),
    "expected z_b on cpu": lambda: views(z_b=META),
    "expected labels on cpu": lambda: views(labels=LABELS.to("meta")),
    "expected centres on cpu": lambda: views(centres=CENTRES.to("meta")),
    "expected at least 5 images (rows of z_a), got 4": lambda: views(smallest=5),
    "expected finite z_a": lambda: views(z_a=INF),
    "expected finite z_b": lambda: views(z_b=INF),
    "expected finite centres": lambda: views(centres=CENTRES.log()),
    "expected labels in 0..1, got 0..9": lambda: views(labels=FAR),
    "expected z_first of shape (N, 4), got (4, 3)": lambda: pairs(ROWS[:, :3]),
    "expected z_second of shape (N, 4), got (4, 3)": lambda: pairs(ROWS, ROWS[:, :3]),
    "expected both patches in one shape": lambda: pairs(ROWS, ROWS[:3]),
    "expected position of shape (4,)": lambda: pairs(ROWS, ROWS, LABELS[:3]),
    "expected z_second on cpu": lambda: pairs(ROWS, META),
    "expected position on cpu": lambda: pairs(ROWS, ROWS, LABELS.to("meta")),
    "expected at least one patch pair, got none": lambda: pairs(ROWS[:0], ROWS[:0], LABELS[:0]),
    "expected finite z_first": lambda: pairs(INF),
    "expected finite z_second": lambda: pairs(ROWS, INF),
    "expected position in 0..7, got 0..9": lambda: pairs(ROWS, ROWS, FAR),
    "expected features=(features_a, features_b) exactly when augmentation_dim is given; got augmentation_dim=4": (
        lambda: checks.check_features(None, 4, 4, "auto")
    ),
    "expected features=(features_a, features_b) exactly when augmentation_dim is given; got augmentation_dim=None": (
        lambda: checks.check_features((ROWS, ROWS), None, 4, "auto")
    ),
    "expected features[0] of shape (N, 4)": lambda: features(ROWS[:, :3], ROWS),
    "expected features[1] of shape (N, 4)": lambda: features(ROWS, ROWS[:, :3]),
    "expected features[0] of 4 rows like the embeddings, got 3": lambda: features(ROWS[:3], ROWS),
    "expected features[1] of 4 rows like the embeddings, got 3": lambda: features(ROWS, ROWS[:3]),
    "expected finite features[0]": lambda: features(INF, ROWS),
    "expected finite features[1]": lambda: features(ROWS, INF),
    "expected z of shape (N, D), got (2, 4, 4)": lambda: rows(rows=ROWS.expand(2, 4, 4)),
    "expected labels of shape (4,), one for each embedding, got (3,)": lambda: rows(classes=LABELS[:3]),
    "expected labels on meta": lambda: rows(rows=META),
    "expected at least one row of z, got none": lambda: rows(rows=ROWS[:0], classes=LABELS[:0]),
    "expected finite z": lambda: rows(rows=INF),
    "expected labels in 0..1, got 0..3": lambda: rows(classes=torch.arange(4)),
    # Who calls the checks gives them its own words.
    "expected centres of shape (C, D), got (2,)": lambda: centring_loss(ROWS, LABELS, CENTRES[:, 0]),
    "expected finite z, got NaN or infinity in rows [0, 1, 2, 3]": lambda: centring_loss(INF, LABELS, CENTRES),
    "expected z of shape (N, 4), got (4, 2)": lambda: centring_loss(ROWS[:, :2], LABELS, CENTRES),
    "expected labels in 0..1, got 0.": lambda: centring_loss(ROWS, FAR, CENTRES),
    "expected centres on cpu like": lambda: centring_loss(ROWS, LABELS, CENTRES.to("meta"), validate=False),
    "expected finite logits": lambda: augmentation_loss(INF, LABELS),
    "expected labels in 0..3, got 0..9": lambda: augmentation_loss(HALF, FAR),
    "expected finite logits, got NaN": lambda: position_loss(INF, LABELS),
    "expected position in 0..3, got 0..9": lambda: position_loss(HALF, FAR),
    "expected finite centres, got NaN": lambda: centre_distances(INF),
    "expected num_classes as a whole": lambda: estimate_centres(nn.Identity(), [], num_classes=0),
    "expected finite embed(images)": lambda: estimate_centres(nn.Identity(), [(INF, LABELS)], num_classes=2),
    "expected labels in 0..1, got": lambda: estimate_centres(nn.Identity(), [(ROWS, FAR)], num_classes=2),
    "expected labels of shape (4,), one": lambda: estimate_centres(nn.Identity(), [(ROWS, FAR[:2])], num_classes=2),
    "expected embed(images) of shape (N, 4), got (2, 3)": lambda: estimate_centres(
        nn.Identity(), [(ROWS, LABELS), (torch.eye(3)[:2], LABELS[1:3])], num_classes=2
    ),
    "expected gather_distributed to be": lambda: calibrated_contrastive_loss(
        ROWS, ROWS, LABELS, CENTRES, gather_distributed="no"
    ),
    "expected z_a of shape (N, 4), got (4, 2)": lambda: calibrated_contrastive_loss(ROWS[:, :2], ROWS, LABELS, CENTRES),
    "expected a finite eps >= 0, got -1": lambda: calibrated_contrastive_loss(ROWS, ROWS, LABELS, CENTRES, eps=-1),
    "expected a finite eps >= 0, got inf": lambda: calibrated_contrastive_loss(
        ROWS, ROWS, LABELS, CENTRES, eps=math.inf
    ),
    "expected at least 2 images (rows of z_a), got 1": lambda: calibrated_contrastive_loss(
        ROWS[:1], ROWS[:1], LABELS[:1], CENTRES
    ),
    "expected embedding_dim as a whole number": lambda: MSACLLoss(embedding_dim=0),
    "expected num_classes as a whole number": lambda: MSACLLoss(num_classes=0),
    "expected augmentation_dim as a whole number": lambda: MSACLLoss(augmentation_dim=0),
}


@pytest.mark.parametrize("words", CALLS)
def test_refusals(words: str) -> None:
    with refused(words):
        CALLS[words]()


WRONG_TYPES: dict[str, Callable[[], object]] = {
    "expected centres to be a tensor, got list": lambda: views(centres=[[0.0]]),
    "expected centres to be floating, got torch.int64: convert": lambda: views(centres=CENTRES.long()),
    "expected z_a to be a tensor, got list": lambda: views(z_a=[0.0]),
    "expected z_b to be floating, got torch.int64": lambda: views(z_b=ROWS.long()),
    "expected labels to be a tensor, got list": lambda: views(labels=[0, 0, 1, 1]),
    "expected labels to be int64, got torch.int32": lambda: views(labels=LABELS.int()),
    "expected patch_pairs to be a tuple (z_first, z_second, position)": lambda: checks.check_patch_pairs(
        (ROWS, ROWS), 4, "auto"
    ),
    "expected patch_pairs to be a tuple": lambda: checks.check_patch_pairs([ROWS, ROWS, LABELS], 4, "auto"),
    "expected features to be a tuple (features_a, features_b)": lambda: checks.check_features((ROWS,), 4, 4, "auto"),
    "expected features to be a tuple": lambda: checks.check_features([ROWS, ROWS], 4, 4, "auto"),
    "expected embed as a function of images, got list": lambda: estimate_centres([], [], num_classes=2),
    "expected batches (images, labels), got 3 values": lambda: estimate_centres(
        nn.Identity(), [(ROWS, LABELS, LABELS)], num_classes=2
    ),
    "expected batches (images, labels), got Tensor": lambda: estimate_centres(
        nn.Identity(), [torch.zeros(2, 4)], num_classes=2
    ),
}


@pytest.mark.parametrize("words", WRONG_TYPES)
def test_wrong_types(words: str) -> None:
    with refused(words, TypeError):
        WRONG_TYPES[words]()
