import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torchvision.models import resnet18

from detectors import IGD, AnomalyPrediction, evaluate
from detectors.igd.losses import absolute_error, similarity_of
from detectors.igd.patches import patches_by_step

SMALL = {"width": 1 / 32, "code_dim": 16}


def tiny_backbone(channels: int = 3) -> nn.Module:
    """Feature maps (B, 24, h, w) with batch-norm, so that modes matter."""
    return nn.Sequential(nn.Conv2d(channels, 24, 4, stride=4), nn.BatchNorm2d(24), nn.ReLU())


def colours() -> nn.Module:
    """Mean colours of 8 x 8 squares: features that tell images apart without training."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())


def smooth_images(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, channels, 4, 4, generator=generator)
    return nn.functional.interpolate(small, size=(size, size), mode="bilinear")


def small_detector(size: int = 32, scales: str = "both", seed: int = 0, **options) -> IGD:
    torch.manual_seed(seed)
    channels = options.get("channels", 3)
    return IGD(tiny_backbone(channels), size, scales, **SMALL | options)


def fitted(size: int = 32, scales: str = "both", epochs: int = 1, **options) -> IGD:
    detector = small_detector(size, scales, **options)
    return detector.fit([smooth_images(4, size, options.get("channels", 3))], epochs, progress=False)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_resnet_is_a_backbone(channels):
    backbone = resnet18()
    before = copy.deepcopy(backbone.state_dict())
    detector = IGD(backbone, 32, "global", channels=channels, **SMALL)
    assert detector.model("global").project.in_features == 512
    detector.fit([torch.rand(2, channels, 32, 32)], 1, progress=False)
    assert isinstance(backbone.fc, nn.Linear)  # the caller's module is left alone
    torch.testing.assert_close(backbone.state_dict(), before)


def test_frozen_backbone_does_not_change_and_a_trained_one_does():
    for freeze in (True, False):
        detector = small_detector(freeze_backbone=freeze)
        before = copy.deepcopy(detector.backbones.state_dict())
        assert len(detector.backbones) == (1 if freeze else 2)
        detector.fit([smooth_images(4)], 1, progress=False)
        after = detector.backbones.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) == freeze
        assert detector.train().backbone("global").module.training is not freeze


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
            model = detector.model(scale)
            z = model.project(detector.backbone(scale)(x))
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


def test_overfits_8_images():
    images, log = smooth_images(8), []
    torch.manual_seed(0)
    detector = IGD(colours(), 32, "global", width=1 / 16)
    detector.fit([images], 300, progress=False, lr=3e-3, on_step=lambda _, terms: log.append(terms))
    first, last = (float(log[i]["global/reconstruction"]) for i in (0, -1))
    assert last < first / 5
    with torch.no_grad():  # in evaluation mode too: the decoder's batch-norm statistics are trained
        reconstructions, _ = detector.model("global")(detector.features(images, "global"))
        error = absolute_error(images, reconstructions, data_range=1.0).mean()
    assert error < 0.1


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


class StopError(Exception):
    pass


@pytest.mark.parametrize("own_generator", [False, True])
def test_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path, own_generator):
    images = smooth_images(8)

    def run(checkpoint, resume=False, stop_at=None) -> IGD:
        detector = small_detector(freeze_backbone=False)
        if resume:
            torch.rand(7)  # the random state at the start of the second process is another one
        loader = torch.utils.data.DataLoader(images, batch_size=4, shuffle=True, generator=torch.Generator())
        generator = torch.Generator().manual_seed(3) if own_generator else None

        def on_step(epoch: int, _: dict) -> None:
            if epoch == stop_at:
                raise StopError

        options = {"checkpoint": checkpoint, "refresh_every": 2, "generator": generator, "on_step": on_step}
        return detector.fit(loader, 4, progress=False, resume=resume, **options)

    whole = run(None)
    with pytest.raises(StopError):
        run(tmp_path / "igd.pt", stop_at=3)
    resumed = run(tmp_path / "igd.pt", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoint_of_another_run_is_refused(tmp_path):
    images, file = [smooth_images(4)], tmp_path / "igd.pt"
    small_detector().fit(images, 1, progress=False, checkpoint=file)
    with pytest.raises(ValueError, match="resume with epochs=1"):
        small_detector().fit(images, 2, progress=False, checkpoint=file, resume=True)
    with pytest.raises(ValueError, match="pass checkpoint=FILE"):
        small_detector().fit(images, 2, progress=False, resume=True)


def test_damaged_files_are_refused(tmp_path):
    images, file = [smooth_images(4)], tmp_path / "igd.pt"
    detector = small_detector().fit(images, 1, progress=False, checkpoint=file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint", pickle.dumps({"detector": Path("x")})):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"igd\.pt"):
            small_detector().fit(images, 1, progress=False, checkpoint=file, resume=True)
        with pytest.raises(ValueError, match=r"igd\.pt"):
            small_detector().load(file)
    torch.save(detector.state_dict(), file)
    with pytest.raises(ValueError, match=r"lacks .*optimisers"):
        small_detector().fit(images, 1, progress=False, checkpoint=file, resume=True)
    with pytest.raises(ValueError, match="made alike"):
        small_detector(scales="local").load(file)


def test_schedule(monkeypatch):
    detector, rates, refreshes = small_detector(scales="local", size=64), [], []
    refresh = detector.refresh
    monkeypatch.setattr(detector, "refresh", lambda loader: refreshes.append(len(rates)) or refresh(loader))
    step = torch.optim.Adam.step

    def recorded(self, *args, **kwargs):
        group = self.param_groups[0]
        rates.append((group["lr"], group["betas"], group["weight_decay"]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    detector.fit([smooth_images(2, 64)] * 2, 3, progress=False, lr=1e-3, refresh_every=2)
    expected = [1e-3 * (1 - t / 6) ** 0.9 for t in range(6)]
    assert [rate for rate, _, _ in rates[::2]] == pytest.approx(expected)  # encoder and decoder
    assert [rate for rate, _, _ in rates[1::2]] == pytest.approx(expected)  # critic
    assert {(betas, decay) for _, betas, decay in rates[::2]} == {((0.0, 0.9), 1e-6)}
    assert {decay for _, _, decay in rates[1::2]} == {0}
    assert refreshes == [0, 8]  # before epochs 0 and 2


@torch.no_grad()
def test_refresh_takes_the_centre_then_sigma_of_all_codes():
    detector, images = small_detector(64), smooth_images(6, 64)
    detector.refresh([images[:4], images[4:]])
    for scale in ("global", "local"):
        inputs = torch.cat(detector.chunks(images, scale))
        codes = detector.model(scale).project(detector.features(inputs, scale)).numpy().astype(np.float64)
        centre = codes.mean(0)
        centre = np.where(np.abs(centre) < 0.1, np.where(centre < 0, -0.1, 0.1), centre)
        sigma = max(1, ((codes - centre) ** 2).sum(1).mean())
        np.testing.assert_allclose(detector.model(scale).centre, centre, atol=1e-5)
        np.testing.assert_allclose(detector.model(scale).sigma, sigma, rtol=1e-5)


def test_own_loop_gives_the_weights_of_fit():
    images = smooth_images(4)
    by_fit = small_detector(scales="global")
    by_fit.fit([images], 1, progress=False, generator=torch.Generator().manual_seed(0))
    own = small_detector(scales="global")
    own.refresh([images])
    own.train()
    optimiser = torch.optim.Adam(own.generator_parameters(), 1e-4, (0.0, 0.9), weight_decay=1e-6)
    critic_optimiser = torch.optim.Adam(own.critic_parameters(), 1e-4, (0.0, 0.9))
    critic = own.critic_loss(images, torch.Generator().manual_seed(0))
    own.losses(images, torch.Generator().manual_seed(0)).total.backward()
    critic.backward()
    optimiser.step()
    critic_optimiser.step()
    for name, value in by_fit.named_parameters():
        torch.testing.assert_close(own.get_parameter(name), value, msg=name)


def test_losses_sum_over_scales():
    detector, images = fitted(64), smooth_images(2, 64)
    losses = detector.losses(images)
    torch.testing.assert_close(losses.total, sum(losses[1:]))
    assert all(value.ndim == 0 for value in losses)
    assert detector.critic_loss(images).ndim == 0


def test_local_steps_hold_at_most_450_patches():
    assert [len(part) for part in patches_by_step(torch.rand(5, 3, 256, 256))] == [450, 450, 225]


def test_steps_report_their_terms():
    log = []
    small_detector(64).fit([smooth_images(2, 64)] * 3, 2, progress=False, on_step=lambda e, t: log.append((e, t)))
    assert [epoch for epoch, _ in log] == [0, 0, 0, 1, 1, 1]
    terms = ["total", "reconstruction", "classification", "interpolation", "critic"]
    assert list(log[0][1]) == [f"{scale}/{term}" for scale in ("global", "local") for term in terms]
    assert not any(value.requires_grad for value in log[0][1].values())


def test_state_dict_round_trip(tmp_path):
    detector, images = fitted(64).set_threshold([smooth_images(4, 64)]), smooth_images(2, 64, seed=1)
    torch.save(detector.state_dict(), tmp_path / "igd.pt")
    restored = small_detector(64, seed=9).eval()
    restored.load_state_dict(torch.load(tmp_path / "igd.pt", weights_only=True))
    for mine, theirs in zip(restored(images), detector(images), strict=True):
        assert torch.equal(mine, theirs)


def test_exported_forward_gives_the_same():
    detector, images = fitted(64), smooth_images(2, 64)
    with torch.no_grad():
        exported = torch.export.export(detector, (images,)).module()
        score, anomaly_map = exported(images)[:2]
        expected = detector(images)
    torch.testing.assert_close(score, expected.pred_score)
    torch.testing.assert_close(anomaly_map, expected.anomaly_map)


def test_trains_and_predicts_under_autocast():
    images, log = smooth_images(4), []
    detector = small_detector()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        detector.fit([images], 2, progress=False, on_step=lambda _, terms: log.append(terms))
        prediction = detector(images)
    assert all(torch.isfinite(value) for terms in log for value in terms.values())
    assert all(value.dtype == torch.float32 for terms in log for value in terms.values())
    torch.testing.assert_close(prediction.pred_score, detector(images).pred_score, atol=0.05, rtol=0)


def test_evaluates_and_takes_labelled_batches():
    detector = small_detector(scales="global")
    detector.fit([(smooth_images(4), torch.zeros(4))], 1, progress=False)
    images, labels = torch.cat([smooth_images(4), torch.rand(4, 3, 32, 32)]), torch.tensor([0] * 4 + [1] * 4)
    assert 0 <= evaluate(detector, [(images, labels)])["image_auroc"] <= 1


def test_progress_bar(capsys):
    small_detector(scales="global").fit([smooth_images(2)], 1, progress=True)
    assert "epoch 1/1" in capsys.readouterr().err


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
        ({"image_size": 48}, "image size"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IGD(tiny_backbone(), **{"image_size": 32, **options})


def test_wrong_backbones_are_refused():
    with pytest.raises(TypeError, match="got int"):
        IGD(3)
    with pytest.raises(ValueError, match=r"pooled features \(B, F\), got \(1, 3, 1024\)"):
        IGD(nn.Flatten(2), 32)
    with pytest.raises(ValueError, match="2 x 32 x 32 images, but it failed"):
        IGD(tiny_backbone(), 32, channels=2)


class Viewing(nn.Module):
    """Flattens its maps by `view`, which the channels_last layout does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        return maps.view(len(maps), -1)


@torch.no_grad()
@pytest.mark.parametrize("backbone", [tiny_backbone(), Viewing(), resnet18()])
def test_features_are_those_of_the_backbone_in_any_memory_layout(backbone):
    detector, images = IGD(backbone, 32, "global", **SMALL), smooth_images(3)
    backbone.eval()
    maps = nn.Sequential(*list(backbone.children())[:-1]) if hasattr(backbone, "fc") else backbone
    features = maps(images)
    features = features.mean((2, 3)) if features.ndim == 4 else features
    torch.testing.assert_close(detector.features(images, "global"), features, atol=1e-5, rtol=1e-5)
