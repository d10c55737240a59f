"""IGD and MS-SSIM against the straightforward formulation: training step, inference, and the similarity alone.

    python benchmarks/bench_igd.py                    # CPU, 256 px, the paper's networks
    python benchmarks/bench_igd.py --threads 2        # by the wall clock; wants an idle machine
    python benchmarks/bench_igd.py --device cuda

"Plain" has the same weights and the same numbers, written as the equations are: nearest-neighbour doubling and a full
3 x 3 convolution, each patch through the local model alone, each patch's |x - x~| as a full-size map, 2-D SSIM windows.
Both run alternately in one process; the table holds medians of the process's CPU time, or of wall time with several
threads or on a GPU, and only ratios mean anything on a shared machine.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from detectors import IGD
from detectors.igd.losses import normality
from detectors.igd.model import IGDModel
from detectors.igd.ms_ssim import gaussian_window, ms_ssim, scales_for
from detectors.igd.networks import DownConv2d, UpConv2d


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} thread(s)"
    setting = f"{args.size} px, width {args.width}; medians of {args.rounds} rounds"
    print(f"Device: {name}; torch {torch.__version__}; {setting}\n")
    print("| what | ours, ms | plain or peer, ms | ratio |\n|---|---|---|---|")
    report("MS-SSIM forward + backward, 4 x 3 x 256 x 256, against pytorch-msssim", *similarity_pair(args), args)
    detector = IGD(resnet18(), args.size, "local", width=args.width).to(args.device)
    detector.refresh([torch.rand(1, 3, args.size, args.size)])
    plain = copy.deepcopy(detector.scales["local"].model.decoder)
    unfuse(plain)
    report("local model, inference, 1 image", *inference_pair(detector.eval(), plain.eval(), args), args)
    for scale in ("global", "local"):
        report(f"{scale} model, training step", *step_pair(scale, args), args)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def report(what: str, ours: Callable[[], object], other: Callable[[], object], args: argparse.Namespace) -> None:
    """Alternate both and print a row."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), other()
    for _ in range(args.rounds):
        for function, column in zip((ours, other), times, strict=True):
            column.append(seconds(function, args))
    a, b = (1e3 * statistics.median(column) for column in times)
    print(f"| {what} | {a:.1f} | {b:.1f} | {b / a:.2f} |", flush=True)


def seconds(function: Callable[[], object], args: argparse.Namespace) -> float:
    """Time of one call: of the process on one thread, which other jobs disturb less, else of the wall clock."""
    if args.device == "cuda":
        torch.cuda.synchronize()
    clock = time.process_time if args.device == "cpu" and args.threads == 1 else time.perf_counter
    start = clock()
    function()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def similarity_pair(args: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object]]:
    """MS-SSIM forward and backward, ours and pytorch-msssim's."""
    x = torch.rand(4, 3, 256, 256, device=args.device)
    y = torch.lerp(x, torch.rand_like(x), 0.3).requires_grad_()
    ours, peer = ms_ssim(x, y), pytorch_msssim.ms_ssim(x, y, 1.0, size_average=False)
    torch.testing.assert_close(ours, peer, atol=1e-5, rtol=0)

    def backward(function: Callable[[], Tensor]) -> None:
        y.grad = None
        function().mean().backward()

    return (
        lambda: backward(lambda: ms_ssim(x, y)),
        lambda: backward(lambda: pytorch_msssim.ms_ssim(x, y, 1.0, size_average=False)),
    )


def inference_pair(
    detector: IGD, decoder: nn.Module, args: argparse.Namespace
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Score and map of one image by the local model, ours and plain."""
    image = torch.rand(1, 3, args.size, args.size, device=args.device)

    @torch.inference_mode()
    def ours() -> tuple[Tensor, Tensor]:
        return detector.score(image)

    @torch.inference_mode()
    def plain() -> tuple[Tensor, Tensor]:
        return plain_local_score(detector, decoder, image)

    for a, b in zip(ours(), plain(), strict=True):
        torch.testing.assert_close(a.flatten(), b.flatten(), atol=1e-4, rtol=1e-4)
    return ours, plain


def plain_local_score(detector: IGD, decoder: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. (10) of one image patch by patch; every patch writes a map of the whole image."""
    model, size, xi, rho = detector.scales["local"].model, image.shape[-1], 0.5, 0.15
    scores, total, coverage = [], torch.zeros_like(image[:, :1]), torch.zeros_like(image[:, :1])
    for top in range(0, size - 31, 16):
        for left in range(0, size - 31, 16):
            place = (..., slice(top, top + 32), slice(left, left + 32))
            patch = image[place]
            codes = model.project(detector.scales["local"].backbone(patch))
            pasted = image.clone()
            pasted[place] = decoder(codes)
            error = (image - pasted).abs().mean(1, keepdim=True)  # full size, 0 outside the patch
            similarity, dissimilar = plain_similarity(patch, pasted[place])
            anomaly = 1 - normality(codes, model.centre, model.sigma)
            reconstruction = rho * error[place].mean() + (1 - rho) * (1 - similarity)
            scores.append(xi * reconstruction + (1 - xi) * anomaly)
            window = torch.zeros_like(coverage)
            window[place] = xi * (1 - rho) * dissimilar + (1 - xi) * anomaly
            total += xi * rho * error + window
            coverage[place] += 1
    return torch.stack(scores).amax(0), total / coverage


def plain_similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """MS-SSIM (1,) and residual map of 1 - SSIM, with 2-D windows and one convolution per moment."""
    size, weights = scales_for(x.shape[-1])
    line = gaussian_window(size, 1.5, x)
    window = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    value, residual, side = torch.ones(x.shape[1], device=x.device), torch.zeros_like(x[:, :1]), x.shape[-1]
    for scale, weight in enumerate(weights):
        luminance, contrast = plain_parts(x, y, window)
        last = scale == len(weights) - 1
        value = value * (luminance * contrast if last else contrast).mean((0, 2, 3)).relu() ** weight
        padded = [F.pad(image, (size // 2,) * 4, mode="reflect") for image in (x, y)]
        luminance, contrast = plain_parts(padded[0], padded[1], window)
        difference = 1 - (luminance * contrast).mean(1, keepdim=True)
        residual = residual + weight * F.interpolate(difference, size=(side, side), mode="bilinear")
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return value.mean(0, keepdim=True), residual


def plain_parts(x: Tensor, y: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure from five 2-D convolutions."""
    mx, my, xx, yy, xy = (F.conv2d(i, window, groups=x.shape[1]) for i in (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
    return luminance, (2 * (xy - mx * my) + 9e-4) / (xx - mx**2 + yy - my**2 + 9e-4)


def step_pair(scale: str, args: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object]]:
    """Losses and gradients of encoder, decoder and critic: ours and with unfused convolutions.

    2 whole images, or 8 patches: the two formulations differ in the networks only, so that a small batch will do.
    """
    side, count = (args.size, 2) if scale == "global" else (32, 8)
    ours = IGDModel(side, 3, 512, 128, args.width, 0.15, 1.0).to(args.device)
    ours.set_gaussian(torch.zeros(128), torch.tensor(1.0))
    plain = copy.deepcopy(ours)
    unfuse(plain)
    images, features = torch.rand(count, 3, side, side, device=args.device), torch.rand(count, 512, device=args.device)

    def step(model: IGDModel) -> None:
        model.zero_grad(set_to_none=True)
        batch = model.training_pass(images, features, None)
        losses, critic = model.losses(batch), model.critic_loss(batch)
        torch.autograd.backward([losses.total, critic])

    return lambda: step(ours), lambda: step(plain)


def unfuse(module: nn.Module) -> None:
    """Turn doubling and halving convolutions into the two steps they stand for, weights kept."""
    for name, child in module.named_children():
        if isinstance(child, UpConv2d | DownConv2d):
            plain = nn.Conv2d(*child.weight.shape[1::-1], child.kernel_size, padding=child.padding)
            plain.weight, plain.bias = child.weight, child.bias
            resize: nn.Module = nn.Upsample(scale_factor=2) if isinstance(child, UpConv2d) else nn.AvgPool2d(2)
            pair = (resize, plain) if isinstance(child, UpConv2d) else (plain, resize)
            setattr(module, name, nn.Sequential(*pair))
        else:
            unfuse(child)


if __name__ == "__main__":
    main()
