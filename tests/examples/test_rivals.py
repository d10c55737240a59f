"""The rivals: each trains, scores and finds a strange image; their formulas equal independent ones."""

import pytest
import torch
import torch.nn.functional as F
from rivals.adgan import ADGAN
from rivals.autoencoders import DenoisingAutoEncoder, MSSSIMAutoEncoder
from rivals.fanogan import FAnoGAN
from rivals.neighbours import MemoryBank, Neighbours
from rivals.ocgan import OCGAN
from rivals.own_rows import RivalSetting, rival_epochs
from rivals.panda import PANDA
from rivals.rival import gradient_penalty
from sklearn.neighbors import NearestNeighbors
from torch import nn

from detectors import evaluate


class TinyBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer2 = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, images):
        return self.layer3(self.layer2(images)).mean((2, 3))


def smooth_images(count, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return 0.3 + 0.2 * F.interpolate(coarse, size=(32, 32), mode="bilinear")


def with_spot(images):
    spotted = images.clone()
    spotted[:, :, 8:20, 8:20] = 1.0
    return spotted


GENERATIVE = [DenoisingAutoEncoder, MSSSIMAutoEncoder, FAnoGAN, OCGAN, ADGAN]


@pytest.mark.parametrize("rival", GENERATIVE)
def test_trains_and_scores(rival):
    torch.manual_seed(0)
    images = smooth_images(8)
    detector = rival(32, epochs=3, width=0.05).fit([images[:4], images[4:]])
    score, heat = detector.score(images)
    assert score.shape == (8,)
    assert heat.shape == (8, 1, 32, 32)
    assert score.isfinite().all()
    assert heat.isfinite().all()
    assert len(detector.history) == 3


@pytest.mark.parametrize("rival", [DenoisingAutoEncoder, MSSSIMAutoEncoder])
def test_auto_encoders_learn_and_find_a_spot(rival):
    torch.manual_seed(0)
    images = smooth_images(16)
    detector = rival(32, epochs=25, lr=4e-3, width=0.1).fit([images])
    losses = [losses["reconstruction"] for losses in detector.history]
    assert losses[-1] < 0.7 * losses[0]
    fresh = smooth_images(16, seed=1)
    masks = torch.zeros(16, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 8:20, 8:20] = True
    batches = [(fresh, torch.zeros(16).long(), masks & False), (with_spot(fresh), torch.ones(16).long(), masks)]
    assert evaluate(detector, batches)["image_auroc"] > 0.9


def test_f_anogan_trains_the_gan_first_and_then_the_encoder_alone():
    torch.manual_seed(0)
    images = smooth_images(4)
    detector = FAnoGAN(32, epochs=3, width=0.05)
    before = [p.detach().clone() for p in detector.encoder.parameters()]
    detector.epochs = 2
    detector.history = []
    detector.train_step(images)
    assert all(torch.equal(a, b) for a, b in zip(before, detector.encoder.parameters(), strict=True))
    detector.history = [{}] * 2
    generator = [p.detach().clone() for p in detector.generator.parameters()]
    detector.train_step(images)
    assert not all(torch.equal(a, b) for a, b in zip(before, detector.encoder.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(generator, detector.generator.parameters(), strict=True))


def test_gradient_penalty_of_a_linear_critic_is_known():
    weight = torch.tensor([3.0, 4.0])

    class Linear(nn.Module):
        def forward(self, x):
            return x @ weight

    penalty = gradient_penalty(Linear(), torch.rand(5, 2), torch.rand(5, 2))
    assert penalty == pytest.approx((5 - 1) ** 2)


def test_mined_codes_stay_in_the_cube_and_are_believed_less():
    torch.manual_seed(0)
    detector = OCGAN(32, epochs=1, width=0.05).eval()
    codes = 2 * torch.rand(6, 128) - 1
    mined = detector._mine(codes)
    assert mined.abs().max() <= 1
    believed = detector.classifier(detector.decoder(codes)).mean()
    assert detector.classifier(detector.decoder(mined)).mean() < believed


def test_neighbours_equal_scikit_learn():
    torch.manual_seed(0)
    backbone = TinyBackbone()
    train = smooth_images(12)
    test = with_spot(smooth_images(5, seed=1))
    detector = Neighbours(backbone, neighbours=3).fit([train[:6], train[6:]])
    with torch.no_grad():
        oracle = NearestNeighbors(n_neighbors=3).fit(backbone(train).numpy())
        expected = oracle.kneighbors(backbone(test).numpy())[0].mean(1)
        assert detector(test).pred_score.numpy() == pytest.approx(expected, rel=1e-3)


def test_memory_bank_knows_its_own_images_and_finds_a_spot():
    torch.manual_seed(0)
    train = smooth_images(12)
    detector = MemoryBank(TinyBackbone()).fit([train])
    with torch.no_grad():
        assert detector(train).pred_score.max() < 1e-3  # cdist's rounding
        fresh = smooth_images(4, seed=1)
        assert detector(with_spot(fresh)).pred_score.min() > detector(fresh).pred_score.max()


def test_memory_bank_is_bounded():
    assert len(MemoryBank(TinyBackbone(), size=50).fit([smooth_images(12)]).bank) == 50


def test_panda_draws_features_together_and_keeps_the_start():
    torch.manual_seed(0)
    backbone = TinyBackbone()
    before = backbone.layer3[0].weight.detach().clone()
    images = smooth_images(16)
    detector = PANDA(backbone, trained=("layer3",), epochs=3, lr=1.0).fit([images])
    spread = [stage.bank.std(0).sum() for stage in detector.checkpoints]
    assert spread[-1] < spread[0]
    assert torch.equal(backbone.layer3[0].weight, before)
    assert torch.equal(detector.checkpoints[0].backbone.layer3[0].weight, before)
    assert torch.equal(detector.checkpoints[-1].backbone.layer2[0].weight, backbone.layer2[0].weight)


def test_panda_score_is_the_largest_ratio():
    torch.manual_seed(0)
    detector = PANDA(TinyBackbone(), trained=("layer3",), epochs=2).fit([smooth_images(8)])
    image = with_spot(smooth_images(2, seed=1))
    with torch.no_grad():
        stages = zip(detector.checkpoints, detector.typical, strict=True)
        ratios = []
        for stage, typical in stages:
            distances = torch.cdist(stage.backbone(image), stage.bank).sort(1).values[:, :2]  # its two neighbours
            ratios.append((distances**2).mean(1) / typical)
        assert torch.equal(detector(image).pred_score, torch.stack(ratios).amax(0))


def test_fanogan_refuses_an_epoch_that_would_leave_its_gan_untrained():
    with pytest.raises(ValueError, match="at least 2 epochs"):
        FAnoGAN(32, epochs=1)
    assert rival_epochs("f-anogan", RivalSetting(), num_images=100_000) == 2
