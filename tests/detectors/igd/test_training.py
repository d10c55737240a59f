import numpy as np
import pytest
import torch
from igd_cases import colours, fitted, small_detector, smooth_images

from detectors import IGD
from detectors.igd.losses import absolute_error
from detectors.igd.training import Training


@pytest.mark.slow
def test_overfits_8_images():
    images, log = smooth_images(8), []
    torch.manual_seed(0)
    detector = IGD(colours(), 32, "global", width=1 / 16)
    detector.fit([images], 300, progress=False, lr=3e-3, on_step=lambda _, terms: log.append(terms))
    first, last = (float(log[i]["global/reconstruction"]) for i in (0, -1))
    assert last < first / 5
    with torch.no_grad():  # in evaluation mode too: the decoder's batch-norm statistics are trained
        reconstructions, _ = detector.scales["global"].model(detector.scales["global"].backbone(images))
        error = absolute_error(images, reconstructions, data_range=1.0).mean()
    assert error < 0.1


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
    for scale in detector.scales.values():
        inputs = torch.cat(scale.inputs(images, detector.chunk_size))
        codes = scale.model.project(scale.backbone(inputs)).numpy().astype(np.float64)
        centre = codes.mean(0)
        centre = np.where(np.abs(centre) < 0.1, np.where(centre < 0, -0.1, 0.1), centre)
        sigma = max(1, ((codes - centre) ** 2).sum(1).mean())
        np.testing.assert_allclose(scale.model.centre, centre, atol=1e-5)
        np.testing.assert_allclose(scale.model.sigma, sigma, rtol=1e-5)


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


def test_steps_report_their_terms():
    log = []
    small_detector(64).fit([smooth_images(2, 64)] * 3, 2, progress=False, on_step=lambda e, t: log.append((e, t)))
    assert [epoch for epoch, _ in log] == [0, 0, 0, 1, 1, 1]
    terms = ["total", "reconstruction", "classification", "interpolation", "critic"]
    assert list(log[0][1]) == [f"{scale}/{term}" for scale in ("global", "local") for term in terms]
    assert not any(value.requires_grad for value in log[0][1].values())


def test_trains_and_predicts_under_autocast():
    images, log = smooth_images(4), []
    detector = small_detector()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        detector.fit([images], 2, progress=False, on_step=lambda _, terms: log.append(terms))
        prediction = detector(images)
    assert all(torch.isfinite(value) for terms in log for value in terms.values())
    assert all(value.dtype == torch.float32 for terms in log for value in terms.values())
    torch.testing.assert_close(prediction.pred_score, detector(images).pred_score, atol=0.05, rtol=0)


def test_progress_bar(capsys):
    small_detector(scales="global").fit([smooth_images(2)], 1, progress=True)
    assert "epoch 1/1" in capsys.readouterr().err


def test_local_terms_are_means_over_all_patches_of_the_batch(monkeypatch):
    monkeypatch.setattr("detectors.igd.scales.MAX_PATCHES", 18)  # images of 64 px have 9 patches
    scale_step, seen, log = Training.scale_step, [], []

    def recorded(self, scale, images, lr):
        terms = scale_step(self, scale, images, lr)
        seen.append((scale, len(images), terms))
        return terms

    monkeypatch.setattr(Training, "scale_step", recorded)
    small_detector(64).fit([smooth_images(5, 64)], 1, progress=False, on_step=lambda _, terms: log.append(terms))
    assert [(scale, count) for scale, count, _ in seen] == [("global", 5), ("local", 18), ("local", 18), ("local", 9)]
    for scale in ("global", "local"):
        counts, terms = zip(*[(count, terms) for name, count, terms in seen if name == scale], strict=True)
        for name in terms[0]:
            mean = np.average([float(part[name]) for part in terms], weights=counts)
            assert float(log[0][f"{scale}/{name}"]) == pytest.approx(mean)


def test_rate_stays_real_where_a_loader_yields_more_than_its_length_says(monkeypatch):
    class Longer(list):
        def __len__(self):
            return 1

    rates, step = [], Training.scale_step
    monkeypatch.setattr(Training, "scale_step", lambda self, s, x, lr: rates.append(lr) or step(self, s, x, lr))
    small_detector(scales="global").fit(Longer([smooth_images(2)] * 3), 1, progress=False, lr=1e-3)
    assert rates == [1e-3, 0, 0]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(smooth_images(2))


@pytest.mark.parametrize(
    "loader", [(smooth_images(2) for _ in range(2)), torch.utils.data.DataLoader(Stream(), batch_size=2)]
)
def test_loaders_without_a_length_are_refused(loader):
    with pytest.raises(TypeError, match=r"expected a loader with a length.*got (generator|DataLoader).*list"):
        small_detector().fit(loader, 1, progress=False)


def test_checkpoint_folder_is_made_before_training(tmp_path):
    file = tmp_path / "runs" / "today" / "igd.pt"
    small_detector().fit([smooth_images(2)], 1, progress=False, checkpoint=file)
    assert [entry.name for entry in file.parent.iterdir()] == ["igd.pt"]


@pytest.mark.parametrize("place", ["a_file/igd.pt", ""])
def test_checkpoint_that_cannot_be_written_is_refused_before_training(tmp_path, place):
    (tmp_path / "a_file").touch()
    with pytest.raises(ValueError, match="expected a checkpoint file that can be written"):
        small_detector().fit([smooth_images(2)], 1, progress=False, checkpoint=tmp_path / place, on_step=pytest.fail)
