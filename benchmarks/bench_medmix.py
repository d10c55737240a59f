"""Speed of the augmentations beside other libraries', alternated in one process.

    python benchmarks/bench_medmix.py
    python benchmarks/bench_medmix.py --device cuda

Times are medians over rounds; only their ratios mean anything on a shared machine.
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median

import kornia.augmentation as K
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter, functional, v2

from medmix import MedMix, MultiClassViews, WeakAugmentation

SIZES = ((32, 3, 256, 256), (256, 3, 64, 64))
JITTER = (0.4, 0.4, 0.4, 0.1)


def contenders(shape: tuple[int, ...]) -> dict[str, Callable[[Tensor], object]]:
    """What is timed, by name; each takes a batch of images."""
    side = shape[-1]
    labels = torch.zeros(shape[0], dtype=torch.int64)
    mix_small, mix_large = MedMix(3, size=(1 / 16, 1 / 4)), MedMix(3)
    chain = torch.nn.Sequential(
        K.RandomResizedCrop((side, side), scale=(0.8, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
    )
    cutmix, transplantation = K.RandomCutMixV2(p=1.0, data_keys=["input", "class"]), K.RandomTransplantation(p=1.0)
    weak = WeakAugmentation(side)
    small, large = (torch.compile(mix.compose, fullgraph=True, dynamic=False) for mix in (mix_small, mix_large))
    pictures = [
        Image.fromarray(p) for p in (np.random.default_rng(0).random((shape[0], side, side, 3)) * 255).astype("u1")
    ]
    return {
        "batch copy": torch.clone,
        "MedMix, n = 3, size 1/16-1/4": mix_small,
        "MedMix, n = 3, size 1/16-1/4, compiled": lambda x: small(x, drawn(mix_small, x)),
        "MedMix, n = 3, default size": mix_large,
        "MedMix, n = 3, default size, compiled": lambda x: large(x, drawn(mix_large, x)),
        "MedMix, n = 3, default size, in a foreground": lambda x: mix_large(x, foreground=disc(x)),
        "MedMix, n = 3, size 1/16-1/4, seamless": MedMix(3, size=(1 / 16, 1 / 4), blending="seamless"),
        "MedMix, image by image, n = 3, size 1/16-1/4": lambda x: naive_loop(x, mix_small),
        "PIL CutPaste, one box, with ToTensor": lambda x: pil_cutpaste(pictures),
        "kornia RandomCutMixV2": lambda x: cutmix(x, labels.to(x.device)),
        "kornia RandomTransplantation": lambda x: transplantation(x, quadrant_mask(x)),
        "kornia PatchMix": K.PatchMix(patch_size=side // 4),
        "torchvision v2 CutMix": lambda x: v2.CutMix(num_classes=2)(x, labels.to(x.device)),
        "WeakAugmentation": weak,
        "kornia's weak chain": chain,
        "MultiClassViews (8 views per image)": MultiClassViews(mix_large, weak),
    }


def drawn(mix: MedMix, images: Tensor) -> dict[str, Tensor]:
    """Parameters for a batch, on its device."""
    return mix.forward_parameters(images.shape, device=images.device)


def naive_loop(images: Tensor, mix: MedMix) -> Tensor:
    """MedMix in a Python loop over the images, each with its neighbour as donor."""
    pairs = (torch.stack([image, other]) for image, other in zip(images, images.roll(1, 0), strict=True))
    return torch.stack([mix(pair).images[0] for pair in pairs])


def pil_cutpaste(pictures: list[Image.Image]) -> Tensor:
    """CutPaste as usually written: one jittered box per picture pasted elsewhere, then ToTensor, picture by picture."""
    jitter, outputs = ColorJitter(*JITTER), []
    for picture in pictures:
        side = picture.width
        size, *at = (torch.rand(5) * torch.tensor([3 / 16, 1, 1, 1, 1])).tolist()
        width = int((1 / 16 + size) * side)
        row, column, to_row, to_column = (int(u * (side - width)) for u in at)
        patch = jitter(picture.crop((column, row, column + width, row + width)))
        output = picture.copy()
        output.paste(patch, (to_column, to_row))
        outputs.append(functional.to_tensor(output))
    return torch.stack(outputs)


def disc(images: Tensor) -> Tensor:
    """A round foreground (B, 1, S, S)."""
    axis = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return (axis[:, None] ** 2 + axis**2 < 0.8).expand(len(images), 1, -1, -1)


def quadrant_mask(images: Tensor) -> Tensor:
    """A class map (B, H, W) with a square of class 1, for RandomTransplantation."""
    mask = torch.zeros_like(images[:, 0], dtype=torch.int64)
    mask[:, : images.shape[2] // 4, : images.shape[3] // 4] = 1
    return mask


def time_once(call: Callable[[Tensor], object], images: Tensor) -> float:
    """Seconds of one call, all work of the device included."""
    # On one thread the process's own time, which other jobs disturb less.
    own_time = not images.is_cuda and torch.get_num_threads() == 1
    clock = time.process_time if own_time else time.perf_counter
    if images.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    call(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


@torch.inference_mode()
def measure(shape: tuple[int, ...], device: str, rounds: int) -> None:
    """Print a table for images of one shape."""
    images = torch.rand(shape, device=device)
    calls = contenders(shape)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            elapsed = time_once(call, images)
            if turn > 0:  # the first turn warms up
                seconds[name].append(elapsed)
    copy = median(seconds["batch copy"])
    print(f"\n| {'x'.join(map(str, shape))} | ms per batch | images/s | times the copy |\n|---|---|---|---|")
    for name, values in seconds.items():
        value = median(values)
        print(f"| {name} | {1e3 * value:.2f} | {shape[0] / value:.0f} | {value / copy:.1f} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    on_gpu = args.device.startswith("cuda")
    name = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()}), {args.threads} thread(s)"
    print(f"{name}, torch {torch.__version__}, {args.rounds} rounds")
    for shape in SIZES:
        measure(shape, args.device, args.rounds)


if __name__ == "__main__":
    main()
