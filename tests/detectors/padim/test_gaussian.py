"""Nested Gaussians against numpy per position, scikit-learn, and themselves in another order."""

import copy
import pickle
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EmpiricalCovariance
from sklearn.utils import validation
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from detectors.padim.gaussian import NestedGaussian
from detectors.padim.tree import Level, from_tree, position, to_tree

GRIDS = [
    [(3, 2, 2)],
    [(4, 1, 1), (3, 3, 2)],
    [(5, 2, 3), (4, 4, 9), (3, 8, 9)],
    [(2, 1, 2), (3, 2, 2), (1, 6, 4), (2, 6, 8)],
    [(0, 2, 2), (3, 4, 4)],
]


def sample(grids: list[tuple[int, int, int]], count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *grid, generator=generator) for grid in grids]


def grids_of(maps: list[Tensor]) -> list[Level]:
    return [Level(m.shape[2], m.shape[3], m.shape[1]) for m in maps]


def values_of(maps: list[Tensor]) -> Tensor:
    """Maps as the Gaussian takes them: (all levels' cells' channels, B) in tree order."""
    levels = grids_of(maps)
    return torch.cat([to_tree(m, levels, k).flatten(0, 1) for k, m in enumerate(maps)])


def started(maps: list[Tensor], eps: float = 0.01) -> NestedGaussian:
    gaussian = NestedGaussian(eps)
    gaussian.start(grids_of(maps))
    return gaussian


def seen(maps: list[Tensor], eps: float = 0.01) -> NestedGaussian:
    return started(maps, eps).update(values_of(maps))


def distances(gaussian: NestedGaussian, maps: list[Tensor]) -> Tensor:
    """Squared distances (B, rows, columns) on the finest grid."""
    return from_tree(gaussian.squared_distance(values_of(maps)), gaussian.levels, len(gaussian.levels) - 1)


def numpy_distances(train: list[Tensor], test: list[Tensor], eps: float) -> np.ndarray:
    """Squared distances by the definition: upsample, concatenate, mean, covariance, inverse at each position."""
    size = train[-1].shape[2:]
    x, y = (
        torch.cat([F.interpolate(m, size=size) for m in maps if m.shape[1]], 1).double().numpy()
        for maps in (train, test)
    )
    distances = np.empty((len(y), *size))
    for row, column in np.ndindex(*size):
        here, there = x[:, :, row, column], y[:, :, row, column]
        precision = np.linalg.inv(np.cov(here, rowvar=False).reshape(x.shape[1], -1) + eps * np.eye(x.shape[1]))
        shift = there - here.mean(0)
        distances[:, row, column] = np.einsum("ni,ij,nj->n", shift, precision, shift)
    return distances


@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("test_count", [1, 5])
def test_equals_numpy_per_position(grids: list[tuple[int, int, int]], test_count: int) -> None:
    train, test = sample(grids, 23), sample(grids, test_count, seed=1)
    gaussian = started(train)
    for start in range(0, 23, 7):
        gaussian.update(values_of([m[start : start + 7] for m in train]))
    got = distances(gaussian.finalize(), test).numpy()
    np.testing.assert_allclose(got, numpy_distances(train, test, 0.01), rtol=2e-5)


def test_equals_empirical_covariance_of_scikit_learn() -> None:
    x = sample([(4, 1, 1)], 50)
    got = distances(seen(x, eps=0.0).finalize(), x).flatten().numpy()
    want = EmpiricalCovariance().fit(x[0].flatten(1).double()).mahalanobis(x[0].flatten(1).double())
    np.testing.assert_allclose(got, want * 49 / 50, rtol=1e-5)  # scikit-learn divides by N


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_order_and_split_do_not_matter(data: st.DataObject, seed: int) -> None:
    grids = data.draw(st.sampled_from(GRIDS))
    count = data.draw(st.integers(2, 20))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1))))
    maps = sample(grids, count, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    whole, parts = seen(maps), started(maps)
    for rows in order.tensor_split(cuts):
        parts.update(values_of([m[rows] for m in maps]))
    want, got = (distances(g.finalize(), maps) for g in (whole, parts))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@given(split=st.integers(1, 18), seed=st.integers(0, 2**32))
def test_merge_equals_one_fit(split: int, seed: int) -> None:
    maps = sample(GRIDS[1], 20, seed)
    whole = seen(maps).finalize()
    left = seen([m[:split] for m in maps])
    right = seen([m[split:] for m in maps])
    got = distances(left.merge(right).finalize(), maps)
    torch.testing.assert_close(got, distances(whole, maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("offset", "spread"), [(1e3, 1e-2), (1e4, 1.0), (0.0, 1e-6), (-1e3, 10.0)])
def test_mean_far_above_the_spread(offset: float, spread: float) -> None:
    train, test = ([offset + spread * m for m in sample(GRIDS[2], n, seed=n)] for n in (40, 3))
    gaussian = started(train)
    for start in range(0, 40, 16):
        gaussian.update(values_of([m[start : start + 16] for m in train]))
    got = distances(gaussian.finalize(), test).numpy()
    np.testing.assert_allclose(got, numpy_distances(train, test, 0.01), rtol=1e-4)


def test_constant_channels_and_fewer_images_than_channels() -> None:
    train, test = sample([(30, 2, 2), (20, 4, 4)], 3), sample([(30, 2, 2), (20, 4, 4)], 2, seed=1)
    train[0][:, :5] = 7.0
    got = distances(seen(train).finalize(), test).numpy()
    np.testing.assert_allclose(got, numpy_distances(train, test, 0.01), rtol=1e-4)


def test_singular_covariance_names_the_position_and_the_fix() -> None:
    maps = sample([(2, 2, 2), (3, 4, 6)], 20)
    maps[1][:, 1, 2, 5] = 0.0
    with pytest.raises(ValueError, match=r"row 2, column 5 of the 4 x 6 grid.*eps above 0"):
        seen(maps, eps=0.0).finalize()


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        seen(sample(GRIDS[0], 1)).finalize()
    with pytest.raises(ValueError, match="call start, then update"):
        NestedGaussian().finalize()


def test_wrong_grids() -> None:
    with pytest.raises(ValueError, match="divide the next finer one"):
        NestedGaussian().start(grids_of(sample([(2, 2, 2), (2, 3, 4)], 3)))
    with pytest.raises(ValueError, match="values per sample"):
        seen(sample(GRIDS[0], 3)).update(values_of(sample(GRIDS[1], 3)))
    with pytest.raises(ValueError, match="same grids"):
        seen(sample(GRIDS[0], 3)).merge(seen(sample(GRIDS[1], 3)))
    with pytest.raises(ValueError, match="eps"):
        NestedGaussian(eps=-1.0)


def test_copies_predict_alike() -> None:
    maps = sample(GRIDS[2], 9)
    gaussian = seen(maps).finalize()
    loaded = NestedGaussian()
    loaded.load_state_dict(gaussian.state_dict())
    for other in (loaded, copy.deepcopy(gaussian), pickle.loads(pickle.dumps(gaussian))):
        assert torch.equal(distances(other, maps), distances(gaussian, maps))


def test_half_keeps_the_precision_of_the_state() -> None:
    gaussian = seen(sample(GRIDS[1], 5)).finalize()
    before = gaussian.state_dict()
    after = gaussian.half().state_dict()
    assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)


@pytest.mark.parametrize("damage", ["mean", "moments", "whitening", "layout"])
def test_inconsistent_state_is_refused(damage: str) -> None:
    state = seen(sample(GRIDS[2], 5)).finalize().state_dict()
    state[damage] = state[damage][:-1]
    with pytest.raises(ValueError, match="in the state"):
        NestedGaussian().load_state_dict(state)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_tree_order_round_trip(level: int) -> None:
    levels = [Level(rows, columns, channels) for channels, rows, columns in GRIDS[3]]
    values = torch.randn(2, 1, levels[level].rows, levels[level].columns)
    tree = to_tree(values, levels, level)
    assert torch.equal(from_tree(tree[:, 0], levels, level), values[:, 0])
    row, column = position(levels, level, 1)
    assert torch.equal(tree[1, 0], values[:, 0, row, column])


class OnePosition(OutlierMixin, BaseEstimator):
    """The Gaussian at one position as a scikit-learn estimator: X (N, features)."""

    def __init__(self, eps: float = 0.01) -> None:
        self.eps = eps

    def fit(self, X: np.ndarray, y: None = None) -> "OnePosition":
        X = validation.validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        self.gaussian_ = seen([as_map(X)], self.eps).finalize()
        self.offset_ = np.quantile(self.score_samples(X), 0.01)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validation.validate_data(self, X, dtype=np.float32, reset=False)
        return -distances(self.gaussian_, [as_map(X)]).flatten().sqrt().double().numpy()

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return self.score_samples(X) - self.offset_

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.where(self.decision_function(X) < 0, -1, 1)


def as_map(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(x))[..., None, None]


@pytest.mark.skipif(
    "on_skip" not in signature(check_estimator).parameters, reason="scikit-learn's checks of today's estimators"
)
def test_scikit_learn_accepts_the_one_position_gaussian() -> None:
    check_estimator(OnePosition(), on_skip=None)


def test_grids_without_cells_and_whitening_without_a_mean_are_refused() -> None:
    state = seen(sample(GRIDS[0], 5)).finalize().state_dict()
    for row in ([0, 2, 3], [2, 0, 3], [2, 2, -1]):
        with pytest.raises(ValueError, match="at least one row and column in the state"):
            NestedGaussian().load_state_dict(state | {"layout": torch.tensor([row])})
    del state["mean"]
    with pytest.raises(ValueError, match="the mean beside the whitening in the state"):
        NestedGaussian().load_state_dict(state, strict=False)


def test_a_state_that_is_not_finite_is_refused() -> None:
    for name in ("mean", "moments", "whitening"):
        state = seen(sample(GRIDS[0], 5)).finalize().state_dict()
        state[name][0] = float("nan")
        with pytest.raises(ValueError, match=f"finite numbers as {name} in the state"):
            NestedGaussian().load_state_dict(state)


def fit_a_share(rank: int, folder: Path, shares: list[int]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/sync", rank=rank, world_size=2)
    start = sum(shares[:rank])
    gaussian = seen([m[start : start + shares[rank]] for m in sample(GRIDS[2], 9)])
    torch.save(gaussian.all_reduce().finalize().state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks are safe on Linux only")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 on: pytest-xdist has threads
@pytest.mark.parametrize("shares", [[7, 2], [1, 8]])
def test_processes_end_with_the_state_of_one(shares: list[int], tmp_path: Path) -> None:
    mp.start_processes(fit_a_share, (tmp_path, shares), nprocs=2, start_method="fork")
    whole = seen(sample(GRIDS[2], 9)).finalize().state_dict()
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(state, whole, rtol=1e-4, atol=1e-4)


def test_after_other_samples_the_whitening_is_gone() -> None:
    maps = sample(GRIDS[1], 9)
    for change in (
        lambda gaussian: gaussian.update(values_of(maps)),
        lambda gaussian: gaussian.merge(seen(maps)),
        lambda gaussian: gaussian.start(grids_of(maps)),
        lambda gaussian: gaussian.clear(),
    ):
        gaussian = seen(maps).finalize()
        assert gaussian.whitening is not None
        change(gaussian)
        assert gaussian.whitening is None
    assert gaussian.levels == []
    assert gaussian.mean is None


def test_eps_is_finite_and_small_by_default() -> None:
    assert NestedGaussian().eps == 0.01
    NestedGaussian(0.0)
    for eps in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"finite eps >= 0, got {eps}"):
            NestedGaussian(eps)


def test_all_of_it_moves_to_a_device() -> None:
    gaussian = seen(sample(GRIDS[1], 9)).finalize()
    assert set(gaussian.state_dict()) == {"layout", "count", "mean", "moments", "whitening"}
    gaussian.to("meta")
    for name in ("layout", "count", "mean", "moments", "whitening", "high", "low"):
        assert getattr(gaussian, name).is_meta
    started_there = NestedGaussian()
    started_there.start(grids_of(sample(GRIDS[1], 1)), "meta")
    for name in ("layout", "count", "mean", "moments"):
        assert getattr(started_there, name).is_meta


def test_merging_with_a_gaussian_without_samples_changes_nothing() -> None:
    maps = sample(GRIDS[1], 9)
    for merged in (seen(maps).merge(started(maps)), started(maps).merge(seen(maps))):
        assert torch.equal(distances(merged.finalize(), maps), distances(seen(maps).finalize(), maps))
    empty = started(maps).merge(started(maps))
    assert empty.count == 0
    assert (empty.mean == 0).all()


def test_two_samples_are_enough() -> None:
    maps = sample(GRIDS[0], 2)
    assert distances(seen(maps).finalize(), maps).isfinite().all()
    with pytest.raises(ValueError, match="at least 2 samples for a covariance, got 0"):
        started(maps).finalize()


def test_values_must_be_columns() -> None:
    gaussian, values = seen(sample(GRIDS[0], 3)), values_of(sample(GRIDS[0], 3))
    for wrong in (values[:, 0], values[None], values[1:]):
        with pytest.raises(ValueError, match="expected 12 values per sample on"):
            gaussian.update(wrong)


def test_values_of_other_grids_have_no_distance() -> None:
    gaussian = seen(sample(GRIDS[0], 3)).finalize()
    with pytest.raises(ValueError, match="expected 12 values per sample on"):
        gaussian.squared_distance(values_of(sample(GRIDS[1], 3)))


def test_updates_on_another_device() -> None:
    """A meta tensor, which has no values, stands for an accelerator's."""
    values = values_of(sample(GRIDS[2], 3))
    gaussian = NestedGaussian()
    gaussian.start(grids_of(sample(GRIDS[2], 1)), "meta")
    assert gaussian.update(values.to("meta")).mean.is_meta


def test_counts_are_exact_beyond_float32() -> None:
    gaussian = started(sample(GRIDS[0], 1))
    gaussian.count += 2**24
    gaussian.update(values_of(sample(GRIDS[0], 1)))
    assert int(gaussian.count) == 2**24 + 1


def test_merging_with_one_sample() -> None:
    maps = sample(GRIDS[1], 1)
    torch.testing.assert_close(started(maps).merge(seen(maps)).mean, seen(maps).mean)


@pytest.mark.parametrize("grids", GRIDS)
def test_every_kind_of_grid_loads(grids: list[tuple[int, int, int]]) -> None:
    maps = sample(grids, 5)
    loaded = NestedGaussian()
    loaded.load_state_dict(seen(maps).finalize().state_dict())
    assert loaded.levels == grids_of(maps)
    assert torch.equal(distances(loaded, maps), distances(seen(maps).finalize(), maps))


def test_parts_of_a_state_are_not_enough() -> None:
    whole = seen(sample(GRIDS[2], 5)).state_dict()
    for missing in ("count", "mean", "moments"):
        gaussian = NestedGaussian()
        gaussian.load_state_dict({name: value for name, value in whole.items() if name != missing}, strict=False)
        with pytest.raises(ValueError, match="call start, then update"):
            gaussian.update(values_of(sample(GRIDS[2], 5)))
    damaged = {name: value for name, value in whole.items() if name != "count"} | {"mean": whole["mean"][1:]}
    with pytest.raises(ValueError, match="expected mean of shape"):
        NestedGaussian().load_state_dict(damaged, strict=False)


@pytest.mark.parametrize(
    ("rows", "message"), [([[2, 2, 3], [4, 4, -1]], "at least one row"), ([[2, 2, 1], [3, 3, 1]], "divide")]
)
def test_layouts_that_cannot_be_are_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NestedGaussian().load_state_dict({"layout": torch.tensor(rows)}, strict=False)
