"""PaDiM beside anomalib's PadimModel on the same backbone, features and channels; anomalib's code runs unmodified.

    pip install --target /tmp/anomalib --no-deps anomalib==2.7.0
    python benchmarks/bench_padim.py --anomalib /tmp/anomalib [--device cuda] [--skip-memory] [--skip-fits]

Times are medians of alternated runs in one process, of its CPU time (on a GPU, wall time); only ratios mean anything on
a shared machine. Peak memory is that of a process of its own, less what the process held before the fit. The plain
backbone is `FeatureExtractor` as it is made, its fastest form has batch-norm folded and lies in channels_last; image to
map is the detector's `for_inference()` copy.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import time
import types
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from detectors import FeatureExtractor, PaDiM, evaluate

LAYERS = ("layer1", "layer2", "layer3")
PARITY_EPS = 0.01 + 1e-5  # anomalib adds both


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anomalib", type=Path, default=Path("/tmp/anomalib"), help="folder given to pip --target")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 64], help="sides that are timed, in pixels")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the peak-memory and WideResNet50 rows")
    parser.add_argument("--skip-fits", action="store_true", help="leave out the rows of fits, which take longest")
    parser.add_argument("--peak", nargs=2, metavar=("SUBJECT", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.peak:
        return print_peak(args.peak[0], int(args.peak[1]), args)
    if not (args.anomalib / "anomalib").is_dir():
        sys.exit(f"anomalib is not in {args.anomalib}: pip install --target {args.anomalib} --no-deps anomalib==2.7.0")
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    print(f"{device}; torch {torch.__version__}, ResNet18 (random weights), 100 channels\n")
    pair = [(64, 64), (256, 256), (96, 160), (300, 300)]
    print("| image size | largest relative difference of score | of map |\n|---|---|---|")
    for size in pair:
        print_parity(size, args)
    print("\n| what | size | anomalib | detectors | ratio |\n|---|---|---|---|---|")
    for side in args.sizes:
        print_times(side, args)
    if not args.skip_memory:
        print("\n| peak memory of a fit, added, 256 px | anomalib | detectors |\n|---|---|---|")
        for count in (64, 208, 832):
            peaks = [peak_of(subject, count, args) for subject in ("anomalib", "ours")]
            print(f"| N = {count} | {peaks[0]} | {peaks[1]} |", flush=True)
        print(f"\nWideResNet50, 550 channels, 256 px, fit on 8 and predict 1: {peak_of('wide', 8, args)} in all")
    return None


def print_parity(size: tuple[int, int], args: argparse.Namespace) -> None:
    """Compare scores and maps after a fit on 12 images."""
    ours, theirs = make_pair(size, args)
    images = torch.rand(12, 3, *size, device=args.device)
    ours.fit([images])
    theirs.idx = ours.channels
    fit_anomalib(theirs, [theirs.feature_extractor(images)])
    test = torch.rand(4, 3, *size, device=args.device)
    with torch.no_grad():
        got, want = ours(test), theirs(test)
    score = ((got.pred_score - want.pred_score.flatten()).abs() / want.pred_score.flatten()).max()
    pixels = ((got.anomaly_map - want.anomaly_map).abs() / want.anomaly_map).max()
    print(f"| {size[0]} x {size[1]} | {score:.1e} | {pixels:.1e} |", flush=True)


@torch.no_grad()
def print_times(side: int, args: argparse.Namespace) -> None:
    """Fit and predict from features, then image to map."""
    ours, theirs = make_pair((side, side), args)
    batches = [torch.rand(n, 3, side, side, device=args.device) for n in (32, 32)]
    ours.fit(batches)
    theirs.idx = ours.channels
    features = [ours.extract(images) for images in batches]

    def fit_ours(batches: list[list[Tensor]]) -> None:
        ours.gaussian.start(ours.embedding.levels, args.device)
        for maps in batches:
            ours.gaussian.update(ours.embedding(maps))
        ours.finalize()

    def fit_theirs(batches: list[list[Tensor]]) -> None:
        fit_anomalib(theirs, [dict(zip(LAYERS, maps, strict=True)) for maps in batches])

    fit_theirs([[m[:8] for m in features[0]]])
    counts = () if args.skip_fits else ((64, features), (200, [*features * 3, [m[:8] for m in features[0]]]))
    for count, parts in counts:
        fits = (lambda b=parts: fit_theirs(b), lambda b=parts: fit_ours(b))
        print_row(f"fit from features, N = {count}", side, fits, 3, args)
    for batch in (1, 16):
        maps = [m[:batch].clone() for m in features[0]]
        calls = (lambda m=maps: map_anomalib(theirs, m, side), lambda m=maps: map_ours(ours, m))
        print_row(f"predict from features, B = {batch}", side, calls, 9, args, inner=10 if side * batch <= 256 else 1)
    fast = ours.for_inference()
    plain = FeatureExtractor(ours.extract.backbone.backbone, LAYERS).to(memory_format=torch.contiguous_format)
    for batch in (1, 16):
        images = batches[0][:batch]
        print_row(f"image to map, B = {batch}", side, (lambda x=images: theirs(x), lambda x=images: fast(x)), 5, args)
        alone = (lambda x=images: plain(x), lambda x=images: fast(x))
        print_row(f"plain backbone alone (left) and image to map, B = {batch}", side, alone, 5, args)
        # Its fastest form: batch-norm folded, channels_last, no check of the images.
        alone = (lambda x=images: fast.extract.backbone(x), lambda x=images: fast(x))
        print_row(f"fastest backbone alone (left) and image to map, B = {batch}", side, alone, 15, args)
    loader = labelled(side, args)
    evaluations = (lambda: [fast(images) for images, *_ in loader], lambda: evaluate(fast, loader))
    print_row("64 images: prediction alone (left) and evaluate", side, evaluations, 3, args)


def labelled(side: int, args: argparse.Namespace) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Four batches of 16 images, every other one with a square lesion."""
    labels = torch.arange(16) % 2
    masks = torch.zeros(16, 1, side, side, dtype=torch.bool)
    masks[1::2, :, side // 4 : side // 2, side // 4 : side // 2] = True
    return [(torch.rand(16, 3, side, side, device=args.device), labels, masks) for _ in range(4)]


def print_row(
    name: str, side: int, calls: tuple[Callable[[], Any], Callable[[], Any]], runs: int, args: argparse.Namespace,
    inner: int = 1,
) -> None:  # fmt: skip
    """Time two calls in alternation."""
    seconds: tuple[list[float], list[float]] = ([], [])
    clock = time.perf_counter if args.device == "cuda" else time.process_time
    for _ in range(runs + 1):
        for own, call in zip(seconds, calls, strict=True):
            call()  # what the other one left in the caches is not this one's
            start = clock()
            for _ in range(inner):
                call()
            if args.device == "cuda":
                torch.cuda.synchronize()
            own.append((clock() - start) / inner)
    left, right = (statistics.median(own[1:]) * 1e3 for own in seconds)
    print(f"| {name} | {side} px | {left:.1f} ms | {right:.1f} ms | {left / right:.2f} |", flush=True)


def map_ours(detector: PaDiM, maps: list[Tensor]) -> Tensor:
    """Map from features."""
    distance = detector.gaussian.squared_distance(detector.embedding(maps)).sqrt()
    return detector.embedding.anomaly_map(distance)


def map_anomalib(model: Any, maps: list[Tensor], side: int) -> Tensor:
    """Map from features."""
    return model.anomaly_map_generator(
        embedding=model.generate_embedding(dict(zip(LAYERS, maps, strict=True))),
        mean=model.gaussian.mean,
        inv_covariance=model.gaussian.inv_covariance,
        image_size=(side, side),
    )


def fit_anomalib(model: Any, features: list[dict[str, Tensor]]) -> None:
    """Memory bank, then Gaussians."""
    model.memory_bank = [model.generate_embedding(maps) for maps in features]
    model.fit()


def make_pair(size: tuple[int, int], args: argparse.Namespace) -> tuple[PaDiM, Any]:
    """Our detector and anomalib's model around one backbone."""
    backbone = torchvision.models.resnet18().eval()
    ours = PaDiM(backbone, LAYERS, eps=PARITY_EPS).to(args.device)
    model = anomalib_model(args.anomalib, backbone.to(args.device))
    return ours, model("resnet18", list(LAYERS), pre_trained=False, n_features=100).to(args.device).eval()


def anomalib_model(folder: Path, backbone: nn.Module) -> Any:
    """PadimModel of anomalib, imported without its packages' __init__ files and their many dependencies."""

    class SharedBackbone(nn.Module):
        """Stands in for TimmFeatureExtractor, so that both sides see the same features."""

        out_dims = (64, 128, 256)

        def __init__(self, backbone: str, layers: list[str], pre_trained: bool) -> None:
            super().__init__()
            self.extract = FeatureExtractor(SharedBackbone.net, layers)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return dict(zip(LAYERS, self.extract(images), strict=True))

    SharedBackbone.net = backbone
    sys.path.insert(0, str(folder))
    for name in (
        "anomalib", "anomalib.data", "anomalib.models", "anomalib.models.image", "anomalib.models.image.padim",
        *(f"anomalib.models.components{part}" for part in ("", ".base", ".stats", ".filters", ".feature_extractors")),
    ):  # fmt: skip
        module = types.ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    sys.modules["anomalib.data"].InferenceBatch = namedtuple("InferenceBatch", "pred_score anomaly_map")
    components = sys.modules["anomalib.models.components"]
    for owner, file, name in (
        (sys.modules["anomalib.models.components.base"], "base.dynamic_buffer", "DynamicBufferMixin"),
        (components, "stats.multi_variate_gaussian", "MultiVariateGaussian"),
        (components, "filters.blur", "GaussianBlur2d"),
    ):
        setattr(owner, name, getattr(importlib.import_module(f"anomalib.models.components.{file}"), name))
    components.TimmFeatureExtractor = SharedBackbone
    sys.modules["anomalib.models.components.feature_extractors"].dryrun_find_featuremap_dims = None
    sys.modules.pop("anomalib.models.image.padim.torch_model", None)
    return importlib.import_module("anomalib.models.image.padim.torch_model").PadimModel


def peak_of(subject: str, count: int, args: argparse.Namespace) -> str:
    """Run a fit in a process of its own and return what it printed."""
    command = [sys.executable, __file__, "--peak", subject, str(count), "--anomalib", str(args.anomalib)]
    result = subprocess.run([*command, "--threads", str(args.threads)], capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else f"failed ({result.stderr.strip().splitlines()[-1]})"


@torch.no_grad()
def print_peak(subject: str, count: int, args: argparse.Namespace) -> None:
    """Fit from features, one batch at a time (their extraction is not counted), and print the peak."""
    if subject == "wide":
        wide = PaDiM(torchvision.models.wide_resnet50_2().eval(), LAYERS, num_features=550)
        wide.fit([torch.rand(4, 3, 256, 256) for _ in range(count // 4)])(torch.rand(1, 3, 256, 256))
        print(f"{memory_mb('VmHWM') / 1000:.1f} GB")
        return
    ours, theirs = make_pair((256, 256), args)
    maps = ours.extract(torch.rand(16, 3, 256, 256))
    settled = [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]
    ours.embedding.initialise(settled, (256, 256))
    ours.gaussian.start(ours.embedding.levels)
    before = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    if subject == "ours":
        for _ in range(count // 16):
            ours.gaussian.update(ours.embedding(maps))
        ours.finalize()
    else:
        fit_anomalib(theirs, [dict(zip(LAYERS, maps, strict=True))] * (count // 16))
    print(f"{memory_mb('VmHWM') - before:.0f} MB")


def memory_mb(name: str) -> float:
    """This process's resident memory now (VmRSS) or at its largest (VmHWM); Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


if __name__ == "__main__":
    main()
