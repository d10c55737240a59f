"""PaDiM against its definition per position, and its life: merge, processes, checkpoints, export."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from detectors import PaDiM
from detectors.padim.embedding import PatchEmbedding
from detectors.padim.tree import from_tree, split_columns


class Pyramid(nn.Module):
    """A small ResNet-like backbone: maps of strides 4, 8 and 16 with 6, 8 and 10 channels, then pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = block(4, 6)
        self.layer2 = block(6, 8)
        self.layer3 = block(8, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(images))))
        return self.head(x.mean((2, 3)))


def block(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, 2, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def make_backbone() -> nn.Module:
    torch.manual_seed(0)
    backbone = Pyramid()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.05, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return backbone.eval()


def make_padim(**options: Any) -> PaDiM:
    options = {"num_features": 12, "generator": torch.Generator().manual_seed(0)} | options
    return PaDiM(make_backbone(), **options)


def draw(count: int, size: tuple[int, int] = (32, 48), seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def numpy_padim(detector: PaDiM, train: Tensor, test: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores and maps by the definition: nearest upsampling, one inverse covariance per position, resize, blur."""

    def embed(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            maps = detector.extract(images)
        maps = [F.interpolate(m, size=maps[0].shape[2:], mode="nearest") for m in maps]
        return torch.cat(maps, 1)[:, detector.channels].double().numpy()

    x, y = embed(train), embed(test)
    distances = np.empty((len(y), 1, *x.shape[2:]))
    for row, column in np.ndindex(*x.shape[2:]):
        here, there = x[:, :, row, column], y[:, :, row, column]
        precision = np.linalg.inv(np.cov(here, rowvar=False) + 0.01 * np.eye(x.shape[1]))
        shift = there - here.mean(0)
        distances[:, 0, row, column] = np.sqrt(np.einsum("ni,ij,nj->n", shift, precision, shift))
    maps = F.interpolate(torch.from_numpy(distances), size=test.shape[2:], mode="bilinear")
    maps = gaussian_blur(maps, [33, 33], [4.0, 4.0]).numpy()
    return maps.max((1, 2, 3)), maps


@pytest.mark.parametrize("size", [(64, 64), (96, 48), (72, 80), (68, 100)])
@pytest.mark.parametrize("nested", [None, False])
def test_equals_numpy_per_position(size: tuple[int, int], nested: bool | None) -> None:
    train, test = draw(9, size), draw(3, size, seed=1)
    detector = make_padim(nested=nested).fit([train[:4], train[4:]])
    scores, maps = numpy_padim(detector, train, test)
    prediction = detector(test)
    np.testing.assert_allclose(prediction.pred_score, scores, rtol=1e-5)
    np.testing.assert_allclose(prediction.anomaly_map, maps, rtol=1e-5)


@given(size=st.tuples(st.integers(17, 90), st.integers(17, 90)))
def test_nested_is_chosen_only_where_it_equals_nearest(size: tuple[int, int]) -> None:
    shapes = [(c, -(-size[0] // s), -(-size[1] // s)) for c, s in ((3, 4), (2, 8), (4, 16))]
    maps = [torch.randn(1, *shape) for shape in shapes]
    channels = torch.tensor([0, 2, 3, 4, 6, 8])
    embedding = PatchEmbedding(None, None, 0.0, channels, None)
    embedding.initialise(shapes, size)
    rows, columns = shapes[0][1:]
    want = torch.cat([F.interpolate(m, size=(rows, columns), mode="nearest") for m in maps], 1)[:, channels]
    assert torch.equal(joined(embedding, maps).sort(1).values, want.sort(1).values)
    assert len(embedding.levels) == 3 or any(side % 16 for side in size)


def joined(embedding: PatchEmbedding, maps: list[Tensor]) -> Tensor:
    """The embedding of every position (B, channels, rows, columns), from values in tree order."""
    levels = embedding.levels
    up = []
    for number, values in enumerate(split_columns(embedding(maps), levels)):
        grid = torch.stack([from_tree(channel, levels, number) for channel in values.unbind(1)], 1)
        grid = grid.repeat_interleave(levels[-1].rows // levels[number].rows, 2)
        up.append(grid.repeat_interleave(levels[-1].columns // levels[number].columns, 3))
    rows, columns = maps[0].shape[2:]
    return torch.cat(up, 1)[..., :rows, :columns]


@pytest.mark.parametrize("size", [(64, 64), (72, 80), (68, 100)])
@pytest.mark.parametrize("nested", [None, False, True])
def test_one_index_selects_repeats_pads_and_orders(size: tuple[int, int], nested: bool | None) -> None:
    images = draw(5, size)
    detector = make_padim(nested=nested).fit([images])
    maps = detector.extract(images)
    embedding = detector.embedding
    if nested and len(embedding.levels) == 3:  # pad as far as each grid's multiple, then repeat
        grids = [(level.rows, level.columns) for level in embedding.levels[::-1]]
        fitted = [pad_to(m, grid) for m, grid in zip(maps, grids, strict=True)]
        up = [m.repeat_interleave(grids[0][0] // m.shape[2], 2) for m in fitted]
        up = [m.repeat_interleave(grids[0][1] // m.shape[3], 3) for m in up]
        rows, columns = maps[0].shape[2:]
        want = torch.cat(up, 1)[:, detector.channels, :rows, :columns]
    else:
        want = torch.cat([F.interpolate(m, size=maps[0].shape[2:], mode="nearest") for m in maps], 1)
        want = want[:, detector.channels]
    assert torch.equal(joined(embedding, maps).sort(1).values, want.sort(1).values)
    with pytest.raises(ValueError, match="from the backbone as in fit"):
        embedding(maps[::-1])


def pad_to(values: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.pad(values, (0, grid[1] - values.shape[3], 0, grid[0] - values.shape[2]), mode="replicate")


def test_padding_by_replication_on_request() -> None:
    images = draw(6, (68, 100))
    nested, joined = make_padim(nested=True).fit([images]), make_padim().fit([images])
    assert len(nested.gaussian.levels) == 3
    assert len(joined.gaussian.levels) == 1
    assert nested(images).anomaly_map.shape == joined(images).anomaly_map.shape


@pytest.mark.parametrize("loader", [lambda x: [(x, 0)], lambda x: [{"image": x}], lambda x: iter(x.split(3))])
def test_fit_takes_every_kind_of_batch(loader: Any) -> None:
    images = draw(8)
    want = make_padim().fit([images])(images).pred_score
    torch.testing.assert_close(make_padim().fit(loader(images), progress=True)(images).pred_score, want)


def test_fit_starts_anew_and_partial_fit_goes_on() -> None:
    images = draw(9)
    want = make_padim().fit([images])(images).pred_score
    detector = make_padim().fit([draw(5, (64, 64), seed=3)]).fit([images])
    torch.testing.assert_close(detector(images).pred_score, want)
    detector = make_padim().fit([images[:5]]).partial_fit(images[5:])
    with pytest.raises(NotFittedError):
        detector(images)
    torch.testing.assert_close(detector.finalize()(images).pred_score, want)


def test_merge_equals_one_fit() -> None:
    images = draw(20)
    want = make_padim().fit([images])(images)
    got = make_padim().fit([images[:7]]).merge(make_padim().fit([images[7:]])).finalize()(images)
    torch.testing.assert_close(got.anomaly_map, want.anomaly_map, rtol=1e-5, atol=1e-5)


def test_merge_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="same image size and channels"):
        make_padim().fit([draw(3)]).merge(make_padim().fit([draw(3, (32, 32))]))
    with pytest.raises(ValueError, match="same image size and channels"):
        make_padim().fit([draw(3)]).merge(make_padim(channels=torch.arange(12)).fit([draw(3)]))
    with pytest.raises(ValueError, match="seen images"):
        make_padim().fit([draw(3)]).merge(make_padim())


def fit_a_share(rank: int, folder: str, shares: list[int], fault: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    start = sum(shares[:rank])
    images = draw(sum(shares))[start : start + shares[rank]]
    if fault == "size" and rank == 1:
        images = images[..., :32]
    if fault == "nan" and rank == 1:
        images[0, 0, 0, 0] = math.nan
    detector = make_padim(generator=torch.Generator().manual_seed(rank))  # channels of the first process count
    try:
        detector.fit(images.split(4) if len(images) else [])
        torch.save(detector.state_dict(), f"{folder}/{rank}.pt")
    except ValueError as error:
        Path(f"{folder}/{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [[7, 4], [11, 0]])
def test_two_processes_end_with_the_state_of_one_fit(tmp_path: Path, shares: list[int]) -> None:
    mp.spawn(fit_a_share, (str(tmp_path), shares, ""), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    images = draw(11)
    joined = make_padim()
    joined.load_state_dict(states[0])
    want = make_padim().fit([images])(images)
    torch.testing.assert_close(joined(images).anomaly_map, want.anomaly_map, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_processes_with_different_images_all_say_so(tmp_path: Path) -> None:
    mp.spawn(fit_a_share, (str(tmp_path), [4, 4], "size"), nprocs=2)
    for rank in range(2):
        assert "images of one size in all processes" in (tmp_path / f"{rank}.txt").read_text()


@pytest.mark.slow
def test_no_process_waits_for_one_that_failed(tmp_path: Path) -> None:
    mp.spawn(fit_a_share, (str(tmp_path), [4, 4], "nan"), nprocs=2)
    assert "process 1 failed with ValueError: expected finite images" in (tmp_path / "0.txt").read_text()
    assert "expected finite images, got 1 NaN" in (tmp_path / "1.txt").read_text()


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples.*got 1"):
        make_padim().fit([draw(1)])


def test_no_images() -> None:
    with pytest.raises(ValueError, match="used up"):
        make_padim().fit([])


def test_wrong_options_and_images() -> None:
    for options in (
        {"num_features": 0}, {"num_features": 25}, {"eps": -1}, {"blur_sigma": -1}, {"top_fraction": 2},
        {"channels": torch.tensor([1, 1])}, {"channels": torch.tensor([24])}, {"channels": torch.tensor([0.5])},
        {"channels": torch.tensor([True])}, {"num_features": 2.5}, {"eps": math.nan}, {"blur_sigma": math.nan},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            make_padim(**options).fit([draw(3)])
    broken = draw(3)
    broken[0, 0, 0, :2] = math.nan
    with pytest.raises(ValueError, match="2 NaN"):
        make_padim().fit([draw(3), broken])
    with pytest.raises(ValueError, match="resize them"):
        make_padim().fit([draw(3), draw(3, (32, 32))])
    with pytest.raises(NotFittedError):
        make_padim()(draw(3))


def distances(detector: PaDiM, images: Tensor) -> Tensor:
    """Mahalanobis distances (B, h, w) on the finest map."""
    squared = detector.gaussian.squared_distance(detector.embedding(detector.extract(images)))
    return detector.embedding.positions(squared.sqrt())


def test_blur_and_top_fraction() -> None:
    images = draw(8)
    detector = make_padim(blur_sigma=0.0, top_fraction=0.1).fit([images])
    prediction = detector(images)
    want = F.interpolate(distances(detector, images)[:, None], size=(32, 48), mode="bilinear")
    torch.testing.assert_close(prediction.anomaly_map, want)
    highest = want.flatten(1).sort(1, descending=True).values[:, :154]
    torch.testing.assert_close(prediction.pred_score, highest.mean(1))


def test_channels_are_drawn_by_the_generator_and_saved() -> None:
    images = draw(3)
    one, two, three = (make_padim(generator=torch.Generator().manual_seed(s)).fit([images]) for s in (1, 1, 2))
    assert torch.equal(one.channels, two.channels)
    assert not torch.equal(one.channels, three.channels)
    assert torch.equal(one.state_dict()["embedding.channels"], one.channels)
    assert torch.equal(make_padim(num_features=None).fit([images]).channels, torch.arange(24))


def test_copies_predict_alike(tmp_path: Path) -> None:
    images = draw(6)
    detector = make_padim().fit([images]).set_threshold([images])
    torch.save(detector.state_dict(), tmp_path / "padim.pt")
    loaded = make_padim(generator=torch.Generator().manual_seed(5))
    loaded.load(tmp_path / "padim.pt")
    for other in (loaded, copy.deepcopy(detector), pickle.loads(pickle.dumps(detector)), detector.to("cpu")):
        for got, want in zip(other(images), detector(images), strict=True):
            assert torch.equal(got, want)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_damaged_and_hostile_files(tmp_path: Path) -> None:
    file, trace = tmp_path / "padim.pt", tmp_path / "trace"
    torch.save(make_padim().fit([draw(3)]).state_dict(), file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:10], b"", b"no checkpoint", bytes(100) + whole[100:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"padim\.pt"):
            make_padim().load(file)
    for hostile in ({"gaussian.mean": Harmful(trace)}, Harmful(trace)):
        torch.save(hostile, file)
        with pytest.raises(ValueError, match="nothing of it was executed"):
            make_padim().load(file)
        file.write_bytes(pickle.dumps(hostile))
        with pytest.raises(ValueError, match=r"padim\.pt"):
            make_padim().load(file)
    assert not trace.exists()
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="dictionary"):
        make_padim().load(file)
    with pytest.raises(FileNotFoundError, match="missing"):
        make_padim().load(tmp_path / "missing.pt")


@pytest.mark.parametrize("name", ["embedding.channels", "embedding.map_shapes", "gaussian.layout"])
def test_inconsistent_state_is_refused(name: str) -> None:
    state = make_padim().fit([draw(3)]).state_dict()
    state[name] = state[name] + 1000
    with pytest.raises(ValueError, match="in the state"):
        make_padim().load_state_dict(state)


def test_export_equals_eager() -> None:
    images = draw(6)
    detector = make_padim().fit([images]).set_threshold([images])
    exported = torch.export.export(detector, (images[:2],)).module()
    for got, want in zip(exported(images[2:4]), detector(images[2:4]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_onnx_equals_eager(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    images = draw(6)
    detector = make_padim().fit([images]).eval()
    torch.onnx.export(detector, (images[:2],), tmp_path / "padim.onnx", dynamo=True)
    session = runtime.InferenceSession(str(tmp_path / "padim.onnx"))
    score, anomaly_map = session.run(None, {session.get_inputs()[0].name: images[:2].numpy()})[:2]
    np.testing.assert_allclose(score, detector(images[:2]).pred_score, rtol=1e-4)
    np.testing.assert_allclose(anomaly_map, detector(images[:2]).anomaly_map, rtol=1e-4)


def test_for_inference_agrees() -> None:
    images = draw(6)
    detector = make_padim().fit([images])
    fast = detector.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(fast(images).anomaly_map, detector(images).anomaly_map, rtol=1e-4, atol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())


def test_channels_last_and_half() -> None:
    images = draw(6)
    detector = make_padim().fit([images])
    want = detector(images)
    got = detector(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got.anomaly_map, want.anomaly_map, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        got = make_padim().fit([images])(images)
    torch.testing.assert_close(got.pred_score, want.pred_score, rtol=0.1, atol=0.1)
    got = copy.deepcopy(detector).bfloat16()(images.bfloat16())
    assert got.pred_score.dtype == torch.float32
    torch.testing.assert_close(got.pred_score, want.pred_score, rtol=0.1, atol=0.1)


def test_backbone_is_a_frozen_copy_in_evaluation_mode() -> None:
    backbone, images = make_backbone(), draw(6)
    detector = PaDiM(backbone, num_features=12).fit([images])
    want = detector(images).pred_score
    for parameter in backbone.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(detector.train()(images).pred_score, want)
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_processes_that_all_lack_images_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.padim.processes.agree", lambda own: None)
    detector = make_padim()
    detector._join_processes()
    assert not detector.is_fitted()
