"""The loss in a training loop, as the README shows it: it stays finite, falls, and the classes are learnt.

Real crops and a small encoder. Without the unit sphere the classes stay at chance here (accuracy .26 to .28 after 60
steps).
"""

import pytest
import torch
from skimage.data import retina
from torch import Tensor, nn
from torch.nn.functional import interpolate

from medmix import MedMix, MultiClassViews, NeighbourPatches, WeakAugmentation
from msacl_loss import MSACLLoss

SIZE, BATCH, STEPS = 32, 8, 60


def crops(generator: torch.Generator) -> Tensor:
    """64 windows of a healthy retina, (64, 3, SIZE, SIZE)."""
    photograph = torch.from_numpy(retina()).permute(2, 0, 1)[None] / 255
    corners = torch.randint(400, 800, (64, 2), generator=generator).tolist()
    windows = [photograph[:, :, top : top + 192, left : left + 192] for top, left in corners]
    return interpolate(torch.cat(windows), size=(SIZE, SIZE), mode="area")


def small_encoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64), (64, 128)):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 128))


OTHER_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)]


@pytest.mark.parametrize("seed", [0, *OTHER_SEEDS])
def test_the_loop_of_the_readme_learns_the_classes(seed: int) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, encoder = crops(generator), small_encoder()
    views = MultiClassViews(strong=MedMix(), weak=WeakAugmentation(SIZE), num_classes=4)
    patches = NeighbourPatches(SIZE // 4)
    criterion = MSACLLoss(embedding_dim=128, num_classes=4)
    view_a, view_b, labels = views(images[:BATCH], generator=generator)
    criterion.fit_centres(encoder, [(view_a, labels), (view_b, labels)])
    optimiser = torch.optim.SGD([*encoder.parameters(), *criterion.parameters()], lr=0.01, momentum=0.9)

    totals, accuracies = [], []
    for _ in range(STEPS):
        batch = images[torch.randperm(len(images), generator=generator)[:BATCH]]
        view_a, view_b, labels = views(batch, generator=generator)
        first, second, position = patches(batch, generator=generator)
        z_a, z_b = encoder(view_a), encoder(view_b)
        terms = criterion(z_a, z_b, labels, (encoder(first), encoder(second), position))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        predicted = criterion.augmentation_logits(z_a.detach()).argmax(dim=1)
        totals.append(terms.total.detach())
        accuracies.append((predicted == labels).float().mean())

    total, accuracy = torch.stack(totals), torch.stack(accuracies)
    assert total.isfinite().all()
    assert total[-20:].mean() < total[20:40].mean() < total[:20].mean()
    assert total.max() < 2 * total[0]
    assert accuracy[-20:].mean() > 0.35  # chance is .25
