from contextlib import nullcontext

import pytest
import torch
from igd_cases import colours, fitted, small_detector, smooth_images, tiny_backbone
from sklearn.exceptions import NotFittedError
from torch import Tensor

from detectors import IGD, AnomalyDetector, AnomalyPrediction, evaluate
from detectors.igd.losses import absolute_error, similarity_of


@pytest.mark.parametrize("scales", ["global", "local", "both"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("score", ["fused", "paper"])
def test_prediction(scales, channels, score):
    detector = fitted(64, scales, channels=channels, score=score)
    images = smooth_images(3, 64, channels, seed=1)
    prediction = detector(images)
    assert isinstance(prediction, AnomalyPrediction)
    assert prediction.pred_score.shape == (3,)
    assert prediction.anomaly_map.shape == (3, 1, 64, 64)
    assert prediction.pred_label is None
    assert not detector.training
    torch.testing.assert_close(torch.from_numpy(-detector.score_samples(images)), prediction.pred_score.detach())
    detector.set_threshold([smooth_images(8, 64, channels)])
    assert detector(images).pred_mask.shape == (3, 1, 64, 64)


def scored_by_hand(detector: IGD, image: Tensor) -> dict[str, tuple[float, float, float]]:
    """(error, similarity, 1 - h) of one image by the global model, and of its patches by the local one."""
    parts = {}
    for scale in detector.scales:
        inputs = [image]
        if scale == "local":
            offsets = range(0, image.shape[-1] - 31, 16)
            inputs = [image[:, :, r : r + 32, c : c + 32] for r in offsets for c in offsets]
        rows = []
        for x in inputs:
            model = detector.scales[scale].model
            z = model.project(detector.scales[scale].backbone(x))
            h = torch.exp(-((z - model.centre) ** 2).sum() / model.sigma)
            y = model.decoder(z)
            rows.append([absolute_error(x, y, data_range=1.0), similarity_of(x, y, data_range=1.0), 1 - h])
        parts[scale] = torch.tensor(rows)
    return parts


@torch.no_grad()
def test_fused_score_by_hand():
    detector, image = fitted(64), smooth_images(1, 64, seed=1)
    parts = scored_by_hand(detector, image)

    def eq10(rows: Tensor, xi: float) -> Tensor:
        return xi * (0.15 * rows[:, 0] + 0.85 * (1 - rows[:, 1])) + (1 - xi) * rows[:, 2]

    expected = 0.5 * eq10(parts["global"], 0.1)[0] + 0.5 * eq10(parts["local"], 0.9).max()
    torch.testing.assert_close(detector(image).pred_score[0], expected, atol=1e-5, rtol=1e-5)
    for scale in ("global", "local"):
        alone = fitted(64, scale)
        expected = eq10(scored_by_hand(alone, image)[scale], 0.5).max()
        torch.testing.assert_close(alone(image).pred_score[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_paper_score_by_hand():
    detector, image = fitted(64, score="paper", nu=0.3), smooth_images(1, 64, seed=1)
    parts = scored_by_hand(detector, image)
    error, similarity, anomaly = parts["global"][0]
    similarity = 0.3 * similarity + 0.7 * parts["local"][:, 1].mean()
    expected = 0.5 * (0.15 * error + 0.85 * (1 - similarity)) + 0.5 * anomaly
    torch.testing.assert_close(detector(image).pred_score[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_chunks_and_batches_do_not_change_predictions():
    detector, images = fitted(64), smooth_images(3, 64, seed=1)
    whole = detector(images)
    detector.chunk_size = 5
    for i in range(3):
        one = detector(images[i : i + 1])
        torch.testing.assert_close(one.pred_score[0], whole.pred_score[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.anomaly_map[0], whole.anomaly_map[i], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_heat_map_is_highest_at_a_pasted_square():
    torch.manual_seed(0)
    normal = 0.3 + 0.2 * torch.rand(16, 1, 1, 1).expand(-1, 3, 64, 64)
    detector = IGD(colours(), 64, "both", width=1 / 32)
    detector.fit(normal.split(4), 25, progress=False, lr=3e-3)
    image = normal[:1].clone()
    image[:, :, 24:36, 36:48] = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    anomaly_map = detector(image).anomaly_map[0, 0].detach()
    row, column = divmod(int(anomaly_map.argmax()), 64)
    assert 22 <= row < 38
    assert 34 <= column < 50
    assert detector.decision_function(torch.cat([normal[:8], image])).argmax() == 8


def test_state_dict_round_trip(tmp_path):
    detector, images = fitted(64).set_threshold([smooth_images(4, 64)]), smooth_images(2, 64, seed=1)
    torch.save(detector.state_dict(), tmp_path / "igd.pt")
    restored = small_detector(64, seed=9).eval()
    restored.load_state_dict(torch.load(tmp_path / "igd.pt", weights_only=True))
    for mine, theirs in zip(restored(images), detector(images), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_exported_forward_gives_the_same():
    detector, images = fitted(64), smooth_images(2, 64)
    with torch.no_grad():
        exported = torch.export.export(detector, (images,)).module()
        score, anomaly_map = exported(images)[:2]
        expected = detector(images)
    torch.testing.assert_close(score, expected.pred_score)
    torch.testing.assert_close(anomaly_map, expected.anomaly_map)


def test_evaluates_and_takes_labelled_batches():
    detector = small_detector(scales="global")
    detector.fit([(smooth_images(4), torch.zeros(4))], 1, progress=False)
    images, labels = torch.cat([smooth_images(4), torch.rand(4, 3, 32, 32)]), torch.tensor([0] * 4 + [1] * 4)
    assert 0 <= evaluate(detector, [(images, labels)])["image_auroc"] <= 1


@pytest.mark.parametrize("call", ["forward", "score_samples", "losses", "critic_loss"])
def test_not_fitted(call):
    with pytest.raises(NotFittedError, match="call fit"):
        getattr(small_detector(), call)(smooth_images(1))


def test_wrong_images_are_refused():
    detector = fitted()
    with pytest.raises(TypeError, match="floating-point"):
        detector(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        detector(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        small_detector().fit([torch.zeros(2, 1, 32, 32)], 1, progress=False)
    with pytest.raises(ValueError, match="NaN"):
        small_detector().fit([torch.full((2, 3, 32, 32), torch.nan)], 1, progress=False)
    with pytest.raises(ValueError, match="at least 1 epoch"):
        small_detector().fit([], 1, progress=False)
    with pytest.raises(ValueError, match="at least 1 epoch"):
        small_detector().fit([smooth_images(1)], 0, progress=False)
    with pytest.raises(ValueError, match="got none"):
        small_detector().refresh([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": "all"}, "scales"),
        ({"score": "max"}, "score"),
        ({"xi": 1.5}, "xi"),
        ({"xi": (0.5, -1.0)}, "xi"),
        ({"nu": 2.0}, "nu"),
        ({"rho": -0.1}, "rho"),
        ({"width": 0.0}, "width"),
        ({"data_range": 0.0}, "data_range"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"image_size": 48}, "multiple of 32, got 48"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IGD(tiny_backbone(), **{"image_size": 32, **options})


def test_values_are_read_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the host would have to wait: a meta tensor, which has no values, stands for an accelerator."""
    monkeypatch.setattr("torch.autocast", lambda device, enabled: nullcontext())  # knows no meta tensors
    detector = fitted()
    images = 255 * smooth_images(2)
    with pytest.raises(ValueError, match="data_range=1 apart"):
        detector.score(images)
    scores, maps = detector.to("meta").score(images.to("meta"))
    assert scores.shape == (2,)
    assert maps.shape == (2, 1, 32, 32)


def test_batches_are_read_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = fitted()
    images = 255 * smooth_images(2)
    with pytest.raises(ValueError, match="data_range=1 apart"):
        list(detector.batches([images]))
    monkeypatch.setattr(AnomalyDetector, "batches", lambda *arguments: iter([images.to("meta")]))
    assert [batch.shape for batch in detector.batches([images])] == [images.shape]
