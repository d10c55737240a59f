"""The module: its parts, what it saves, precision, compilation, CCD, and what it refuses."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from pytorch_metric_learning.losses import NTXentLoss
from torch import nn
from torch.nn.functional import normalize as normalised

from msacl_loss import (
    LossTerms,
    MSACLLoss,
    NotFittedError,
    augmentation_loss,
    calibrated_contrastive_loss,
    centring_loss,
    estimate_centres,
    position_loss,
)

IMAGES, DIM = 6, 5


def make(**options: object) -> MSACLLoss:
    criterion = MSACLLoss(DIM, 3, **options)
    criterion.set_centres(torch.arange(3.0 * DIM).view(3, DIM) / 100)
    return criterion


def batch(dtype: torch.dtype = torch.float32) -> dict[str, object]:
    z = torch.randn(4, IMAGES, DIM).to(dtype)
    pairs = (z[2], z[3], torch.arange(IMAGES) % 8)
    return {"z_a": z[0], "z_b": z[1], "labels": torch.arange(IMAGES) % 3, "patch_pairs": pairs}


@pytest.mark.parametrize("normalize", [True, False])
def test_terms_are_the_pure_functions_and_total_is_their_weighted_sum(normalize: bool) -> None:
    weights = (0.5, 2.0, 3.0, 0.25)
    criterion = make(temperature=0.3, alpha=3.0, positive="nll", weights=weights, normalize=normalize)
    data = batch()
    terms = criterion(**data)
    assert isinstance(terms, LossTerms)
    z_a, z_b, (first, second, position) = data["z_a"], data["z_b"], data["patch_pairs"]
    radius = 1.0
    if normalize:
        z_a, z_b, first, second = (normalised(z, dim=1) for z in (z_a, z_b, first, second))
        radius = DIM**0.5
    z, labels = torch.cat((z_a, z_b)), data["labels"].repeat(2)
    expected = (
        centring_loss(z, labels, criterion.centres),
        calibrated_contrastive_loss(
            z_a, z_b, data["labels"], criterion.centres, temperature=0.3, alpha=3.0, positive="nll"
        ),
        augmentation_loss(criterion.augmentation_head(radius * z), labels),
        position_loss(criterion.position_head(radius * (first - second)), position),
    )
    torch.testing.assert_close(tuple(terms)[1:], expected)
    torch.testing.assert_close(terms.total, sum(w * term for w, term in zip(weights, expected, strict=True)))
    assert list(terms._asdict()) == ["total", "centring", "contrastive", "augmentation", "position"]
    assert all(term.shape == () for term in terms)


def test_the_scale_of_the_embeddings_does_not_matter() -> None:
    criterion, data = make(), batch(torch.float64)
    scaled = {**data, "z_a": 1e3 * data["z_a"], "z_b": 1e-3 * data["z_b"]}
    torch.testing.assert_close(criterion(**scaled), criterion(**data), rtol=1e-6, atol=1e-6)


def test_an_embedding_at_the_origin_gets_no_gradient() -> None:
    criterion, data = make(), batch()
    data["z_a"] = torch.zeros(IMAGES, DIM, requires_grad=True)
    terms = criterion(**data)
    terms.total.backward()
    assert terms.total.isfinite()
    assert not data["z_a"].grad.any()


@pytest.mark.parametrize("normalize", [True, False])
def test_fitted_centres_are_those_of_what_the_loss_sees(normalize: bool) -> None:
    criterion, encoder = MSACLLoss(DIM, 3, normalize=normalize), nn.Linear(4, DIM)
    images, labels = torch.randn(9, 4), torch.arange(9) % 3
    assert criterion.fit_centres(encoder, [(images[:6], labels[:6]), (images[6:], labels[6:])]) is criterion
    expected = estimate_centres(encoder, [(images, labels)], num_classes=3, normalize=normalize)
    torch.testing.assert_close(criterion.centres, expected)


def test_centres_outside_the_sphere_are_refused() -> None:
    outside = torch.zeros(3, DIM)
    outside[1, 2] = 1.01
    with pytest.raises(ValueError, match=r"norm <= 1.*norm 1\.01.*fit_centres"):
        MSACLLoss(DIM, 3).set_centres(outside)
    literal = MSACLLoss(DIM, 3, normalize=False)
    literal.set_centres(outside)
    with pytest.raises(ValueError, match="norm <= 1"):
        MSACLLoss(DIM, 3).load_state_dict(literal.state_dict())
    on_it = torch.nn.functional.normalize(torch.randn(3, DIM), dim=1)
    MSACLLoss(DIM, 3).set_centres(on_it.half())


def test_warns_once_when_centring_outgrows_the_rest() -> None:
    criterion, data = make(normalize=False), batch()
    large = {**data, "z_a": 1e3 * data["z_a"], "patch_pairs": None}
    criterion(**data)
    with pytest.warns(RuntimeWarning, match=r"equation \(3\).*normalize=True"):
        criterion(**large)
    criterion(**large)  # a second warning would be an error
    make(normalize=False, validate=False)(**large)  # reads nothing back
    with pytest.warns(RuntimeWarning, match="lower its weight"):
        make(weights=(1000.0, 1.0, 1.0, 1.0))(**data)
    make(weights=(1.0, 0.0, 0.0, 0.0), normalize=False)(**large)  # on purpose


def test_every_parameter_learns_and_the_centres_are_frozen() -> None:
    criterion = make()
    criterion(**batch()).total.backward()
    assert {name.split(".")[0] for name, _ in criterion.named_parameters()} == {"augmentation_head", "position_head"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in criterion.parameters())
    assert not criterion.centres.requires_grad


def test_without_patch_pairs_the_position_term_is_zero() -> None:
    data = batch()
    del data["patch_pairs"]
    assert make()(**data).position == 0


def test_weights_change_between_steps() -> None:
    criterion, data = make(), batch()
    terms = criterion(**data)
    criterion.weights = (0.0, 1.0, 0.0, 0.0)
    torch.testing.assert_close(criterion(**data).total, terms.contrastive)
    assert "weights" not in " ".join(criterion.state_dict())


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1, 1, -1), (1, 1, 1, float("nan")), (1, 1, 1, float("inf"))])
def test_bad_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="four finite weights"):
        MSACLLoss(weights=weights)


def test_augmentation_head_on_backbone_features() -> None:
    criterion, data = make(augmentation_dim=7), batch()
    features = tuple(torch.randn(2, IMAGES, 7))
    expected = augmentation_loss(criterion.augmentation_head(torch.cat(features)), data["labels"].repeat(2))
    torch.testing.assert_close(criterion(**data, features=features).augmentation, expected)
    with pytest.raises(ValueError, match="exactly when augmentation_dim"):
        criterion(**data)
    with pytest.raises(ValueError, match="exactly when augmentation_dim"):
        make()(**data, features=features)
    with pytest.raises(ValueError, match=r"features\[0\] of 6 rows"):
        criterion(**data, features=tuple(feature[1:] for feature in features))


def test_position_head_on_both_embeddings() -> None:
    criterion, data = make(position_input="concat", normalize=False), batch()
    first, second, position = data["patch_pairs"]
    expected = position_loss(criterion.position_head(torch.cat((first, second), 1)), position)
    torch.testing.assert_close(criterion(**data).position, expected)


def test_ccd_recipe_is_nt_xent_without_centring() -> None:
    criterion = MSACLLoss(DIM, 3, alpha=1.0, weights=(0.0, 1.0, 1.0, 1.0))
    criterion.set_centres(torch.zeros(3, DIM))
    data = batch(torch.float64)
    terms = criterion(**data)
    z = torch.cat((data["z_a"], data["z_b"]))
    torch.testing.assert_close(terms.contrastive, NTXentLoss(0.2)(z, torch.arange(IMAGES).repeat(2)))
    torch.testing.assert_close(terms.total, terms.contrastive + terms.augmentation + terms.position)


def test_state_dict_holds_the_centres() -> None:
    criterion, fresh = make(), MSACLLoss(DIM, 3)
    holder = nn.ModuleDict({"criterion": fresh})
    holder.load_state_dict({f"criterion.{name}": value for name, value in criterion.state_dict().items()})
    data = batch()
    torch.testing.assert_close(fresh(**data), criterion(**data), rtol=0, atol=0)
    unset = MSACLLoss(DIM, 3)
    unset.load_state_dict(MSACLLoss(DIM, 3).state_dict())
    with pytest.raises(NotFittedError):
        unset(**data)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_equal(duplicate: Callable[[MSACLLoss], MSACLLoss]) -> None:
    criterion, data = make(weights=(1, 2, 3, 4)), batch()
    torch.testing.assert_close(duplicate(criterion)(**data), criterion(**data), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_centres_stay_float32(dtype: torch.dtype) -> None:
    criterion = make(weights=(0.1, 1, 1, 1))
    before = criterion.centres.clone()
    criterion.to(dtype)
    assert torch.equal(criterion.centres, before)
    terms = criterion(**batch(dtype))
    assert all(term.isfinite() for term in terms)
    assert terms.centring.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype: torch.dtype, scale: float) -> None:
    criterion, data = make(), batch()
    for name in ("z_a", "z_b"):
        data[name] = (scale * data[name]).to(dtype).requires_grad_()
    data["patch_pairs"] = (data["z_a"], data["z_b"], data["patch_pairs"][2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = criterion(**data)
        terms.total.backward()
    exact = criterion(**{**data, "z_a": data["z_a"].float(), "z_b": data["z_b"].float()})
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms)
    torch.testing.assert_close(terms.contrastive, exact.contrastive)
    torch.testing.assert_close(terms.augmentation, exact.augmentation)
    assert data["z_a"].grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["dense", "streaming"])
@torch._dynamo.config.patch(error_on_recompile=True)
def test_compiles_whole_for_any_batch_size_and_new_weights(implementation: str) -> None:
    criterion = make(implementation=implementation)
    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True, dynamic=True, backend="aot_eager")
    for step, count in enumerate((4, 6, 9)):
        criterion.weights = (step / 10, 1.0, 1.0, 1.0)
        labels = torch.arange(count) % 3
        z = [torch.randn(count, DIM, requires_grad=True) for _ in range(4)]
        results = []
        for module in (compiled, criterion):
            terms = module(z[0], z[1], labels, patch_pairs=(z[2], z[3], labels))
            results.append((*terms, *torch.autograd.grad(terms.total, z)))
        torch.testing.assert_close(results[0], results[1])


def test_second_derivatives() -> None:
    """A gradient penalty on the embeddings, through either form."""
    criterion, data, penalties = make(), batch(torch.float64), []
    for criterion.implementation in ("dense", "streaming"):
        z_a = data["z_a"].clone().requires_grad_()
        total = criterion(**{**data, "z_a": z_a}).total
        (gradient,) = torch.autograd.grad(total, z_a, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), z_a)[0])
    torch.testing.assert_close(*penalties, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"z_a": [1.0]}, TypeError, "z_a to be a tensor, got list"),
        ({"z_a": torch.zeros(IMAGES, DIM).long()}, TypeError, "z_a to be floating"),
        ({"z_a": torch.zeros(IMAGES, DIM + 1)}, ValueError, r"z_a of shape \(N, 5\).*\(6, 6\)"),
        ({"z_a": torch.zeros(IMAGES, DIM, 1)}, ValueError, r"z_a of shape \(N, 5\)"),
        ({"z_b": torch.zeros(IMAGES + 1, DIM)}, ValueError, "both views in one shape"),
        ({"z_b": torch.full((IMAGES, DIM), torch.nan)}, ValueError, r"finite z_b.*rows \[0, 1"),
        ({"z_a": torch.full((IMAGES, DIM), torch.inf)}, ValueError, "finite z_a"),
        ({"labels": torch.full((IMAGES,), 3)}, ValueError, r"labels in 0\.\.2, got 3\.\.3"),
        ({"labels": torch.full((IMAGES,), -1)}, ValueError, r"labels in 0\.\.2, got -1"),
        ({"labels": torch.zeros(IMAGES - 1).long()}, ValueError, r"labels of shape \(6,\)"),
        ({"labels": torch.zeros(IMAGES)}, TypeError, "labels to be int64"),
        ({"labels": [0] * IMAGES}, TypeError, "labels to be a tensor"),
        ({"patch_pairs": torch.zeros(3)}, TypeError, "tuple"),
        (
            {"patch_pairs": (torch.zeros(2, DIM), torch.zeros(3, DIM), torch.zeros(2).long())},
            ValueError,
            "both patches",
        ),
        ({"patch_pairs": (torch.zeros(2, DIM), torch.zeros(2, DIM), torch.full((2,), 8))}, ValueError, r"0\.\.7"),
        ({"patch_pairs": (torch.zeros(0, DIM),) * 2 + (torch.zeros(0).long(),)}, ValueError, "at least one patch"),
        (
            {"z_a": torch.zeros(1, DIM), "z_b": torch.zeros(1, DIM), "labels": torch.zeros(1).long()},
            ValueError,
            "at least 2 images",
        ),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()(**{**batch(), **change})


def test_value_checks_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    data = batch()
    data["z_a"] = torch.full((IMAGES, DIM), torch.nan)
    assert make(validate=False)(**data).total.isnan()
    with pytest.raises(ValueError, match="finite"):
        make(validate=True)(**data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature > 0"),
        ({"temperature": -1.0}, "temperature > 0"),
        ({"temperature": float("nan")}, "temperature > 0"),
        ({"alpha": 0.5}, "repel the positive"),
        ({"alpha": float("nan")}, "alpha >= 1"),
        ({"positive": "none"}, "'paper', 'nll' or 'decoupled'"),
        ({"implementation": "fast"}, "'auto', 'dense' or 'streaming'"),
        ({"validate": "no"}, "validate to be True, False or 'auto'"),
        ({"gather_distributed": "never"}, "gather_distributed to be True, False or 'auto'"),
        ({"position_input": "sum"}, "'difference' or 'concat'"),
        ({"normalize": "auto"}, "normalize to be True or False"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MSACLLoss(**options)


def test_missing_and_bad_centres() -> None:
    criterion = MSACLLoss(DIM, 3)
    with pytest.raises(NotFittedError, match="set_centres"):
        criterion(**batch())
    with pytest.raises(ValueError, match=r"shape \(3, 5\), got \(2, 5\)"):
        criterion.set_centres(torch.zeros(2, DIM))
    with pytest.raises(ValueError, match="finite centres"):
        criterion.set_centres(torch.full((3, DIM), torch.nan))


def test_missing_centres_are_caught_as_any_of_these() -> None:
    for error in (RuntimeError, ValueError, AttributeError):
        with pytest.raises(error, match="fit_centres"):
            MSACLLoss(DIM, 3)(**batch())


def test_importing_the_package_loads_no_scikit_learn() -> None:
    code = "import sys, msacl_loss; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_on_the_meta_device_can_be_emptied_onto_a_real_one() -> None:
    with torch.device("meta"):
        criterion = MSACLLoss(DIM, 3)
    criterion.to_empty(device="cpu")
    criterion.load_state_dict(make().state_dict())
    assert criterion.centres.isfinite().all()
    plain, data = make(), batch()
    plain.load_state_dict(criterion.state_dict())
    assert criterion(**data) == plain(**data)


def test_centres_are_frozen_even_if_they_came_with_a_graph() -> None:
    criterion = MSACLLoss(DIM, 3)
    criterion.set_centres(torch.zeros(3, DIM, requires_grad=True) * 2)
    assert not criterion.centres.requires_grad


@pytest.mark.parametrize(
    ("centres", "error", "words"),
    [([[0.0]], TypeError, "tensor, got list"), (torch.zeros(3, DIM).long(), TypeError, "floating")],
)
def test_centres_of_a_wrong_type(centres: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        MSACLLoss(DIM, 3).set_centres(centres)


@pytest.mark.parametrize("features", [torch.zeros(2, IMAGES, 7), (torch.zeros(IMAGES, 7),)])
def test_features_are_a_pair(features: object) -> None:
    criterion = MSACLLoss(DIM, 3, augmentation_dim=7)
    criterion.set_centres(torch.zeros(3, DIM))
    with pytest.raises(TypeError, match="tuple"):
        criterion(**batch(), features=features)


def test_weights_read_back_cannot_be_changed_in_place() -> None:
    with pytest.raises(TypeError):
        make().weights[0] = -5.0


def test_defaults_are_the_papers() -> None:
    criterion = MSACLLoss()
    assert criterion.centres.shape == (4, 128)
    assert (criterion.temperature, criterion.alpha, criterion.positive) == (0.2, 2.0, "paper")
    assert criterion.weights == (1.0, 1.0, 1.0, 1.0)
    assert (criterion.implementation, criterion.gather_distributed, criterion.validate) == ("auto", "auto", "auto")
    assert (criterion.position_input, criterion.normalize, criterion.augmentation_dim) == ("difference", True, None)


def test_weights_are_those_that_are_computed_with() -> None:
    criterion = MSACLLoss(weights=torch.tensor([0.1, 0, 1, 3], dtype=torch.float64))
    assert criterion.weights == tuple(criterion._weights.tolist())
    criterion.to("meta")
    assert criterion._weights.is_meta
    assert criterion.augmentation_head.weight.is_meta


def test_without_validation_nan_goes_through() -> None:
    criterion = MSACLLoss(3, validate=False)
    criterion.set_centres(torch.zeros(4, 3))
    bad, labels = torch.full((4, 3), torch.nan), torch.arange(4)
    terms = criterion(bad, bad, labels, (bad, bad, labels))
    assert all(bool(term.isnan()) for term in terms)


def test_loaded_centres_are_looked_at() -> None:
    """Partly NaN they were never set; long ones are means of no unit vectors, which matters on the sphere only."""
    state = MSACLLoss(2).state_dict()
    state["centres"] = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, torch.nan]])
    criterion = MSACLLoss(2)
    criterion.load_state_dict(state)
    with pytest.raises(NotFittedError):
        criterion(torch.eye(2), torch.eye(2), torch.arange(2))
    state["centres"] = 9 * torch.ones(4, 2)
    literal = MSACLLoss(2, normalize=False)
    literal.load_state_dict(state)
    assert torch.equal(literal.centres, state["centres"])
    with pytest.raises(ValueError, match="centres of norm <= 1"):
        criterion.load_state_dict(state)
