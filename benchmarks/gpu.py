"""Every GPU figure of the project in one table, peers in the same run.

    python benchmarks/gpu.py                       # an NVIDIA GPU; about five minutes
    python benchmarks/gpu.py --device cpu --small  # the same code at tiny sizes, to see that it runs

Times are medians of alternated rounds in ms, after one round that does not count; the device is waited for before and
after each. MedMix is given in copies of its batch. "host reads" runs a training step under
torch.cuda.set_sync_debug_mode("error"), which refuses any wait for the device. A peer that is not installed or runs out
of memory is named as such. Peers: pip install -e ".[test,examples]".
"""

import argparse
import statistics
import time
from collections.abc import Callable

import kornia.augmentation as K
import lightly.loss
import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import nn
from torchvision.models import resnet18

from detectors import IGD, PaDiM
from medmix import MedMix, MultiClassViews, WeakAugmentation
from msacl_loss import MSACLLoss, calibrated_contrastive_loss

Step = Callable[[], object]


def medmix_steps(device: str, small: bool) -> dict[str, Step]:
    """MedMix and its peers on 32 images of 256 px; the first line is the copy that the others are counted in."""
    size = 32 if small else 256
    images = torch.rand(32, 3, size, size, device=device)
    labels = torch.zeros(32, dtype=torch.long, device=device)
    medmix = MedMix()
    small_lesions = MedMix(size=(1 / 16, 1 / 4))
    views = MultiClassViews(strong=medmix, weak=WeakAugmentation(size), num_classes=4)
    cutmix = K.RandomCutMixV2(p=1.0, use_correct_lambda=True)
    return {
        "batch copy": images.clone,
        "MedMix, default size": lambda: medmix(images),
        "MedMix, lesions 1/16 to 1/4": lambda: small_lesions(images),
        "kornia RandomCutMixV2": lambda: cutmix(images, labels),
        "MultiClassViews, 8 views an image": lambda: views(images),
    }


def loss_steps(device: str, count: int) -> dict[str, Step]:
    """Equation (5) and its peers, forward + backward, on `count` views of 128 components."""
    z_a = torch.randn(count // 2, 128, device=device, requires_grad=True)
    z_b = torch.randn(count // 2, 128, device=device, requires_grad=True)
    labels = torch.randint(4, (count // 2,), device=device)
    centres = 0.1 * torch.randn(4, 128, device=device)
    pairs = torch.arange(count // 2, device=device).repeat(2)
    nt_xent = lightly.loss.NTXentLoss(0.2)
    sup_con = SupConLoss(0.2)
    return {
        "equation (5)": lambda: calibrated_contrastive_loss(z_a, z_b, labels, centres).backward(),
        "lightly NTXentLoss": lambda: nt_xent(z_a, z_b).backward(),
        "pytorch-metric-learning SupConLoss": lambda: sup_con(torch.cat((z_a, z_b)), pairs).backward(),
    }


def padim_steps(device: str, small: bool) -> dict[str, Step]:
    """PaDiM's fit on 64 images and its prediction of 16, beside anomalib's."""
    size = 64 if small else 256
    images = torch.rand(64, 3, size, size, device=device)
    batches = list(images.split(16))
    ours = PaDiM("resnet18", weights=None).to(device).fit(batches)
    steps = {
        "PaDiM fit, 64 images": lambda: PaDiM("resnet18", weights=None).to(device).fit(batches),
        "PaDiM predict, 16 images": lambda: ours(batches[0]),
    }
    return steps | anomalib_steps(batches, device)


def anomalib_steps(batches: list[torch.Tensor], device: str) -> dict[str, Step]:
    """The same by anomalib, where it is installed."""
    try:
        from anomalib.models.image.padim.torch_model import PadimModel
    except ImportError:
        return {}

    def fit() -> nn.Module:
        model = PadimModel(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False)
        model = model.to(device).train()
        for batch in batches:
            model(batch)
        model.fit()
        return model.eval()

    fitted = fit()
    return {"anomalib fit, 64 images": fit, "anomalib predict, 16 images": lambda: fitted(batches[0])}


def igd_steps(device: str, small: bool) -> dict[str, Step]:
    """IGD's prediction of 16 images by both models."""
    size = 64 if small else 256
    width = 0.05 if small else 1.0
    images = torch.rand(16, 3, size, size, device=device)
    detector = IGD(resnet18(), image_size=size, width=width).to(device).fit([images], epochs=1).eval()
    return {"IGD predict, 16 images, both scales": lambda: detector(images)}


class PreTraining:
    """One MSACL step on 32 images, 256 views, with ResNet18."""

    def __init__(self, device: str, small: bool, *, amp: bool) -> None:
        size, count = (32, 4) if small else (256, 32)
        self.device = device
        self.amp = amp
        self.images = torch.rand(count, 3, size, size, device=device)
        self.encoder = resnet18(num_classes=128).to(device, memory_format=torch.channels_last)
        self.views = MultiClassViews(strong=MedMix(), weak=WeakAugmentation(size), num_classes=4)
        self.criterion = MSACLLoss(embedding_dim=128, num_classes=4).to(device)
        self.criterion.set_centres(0.1 * torch.randn(4, 128))
        parameters = [*self.encoder.parameters(), *self.criterion.parameters()]
        self.optimiser = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings, by bfloat16 autocast if asked for."""
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.amp):
            return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def step(self) -> None:
        """Views, embeddings, loss, gradients, optimiser."""
        view_a, view_b, labels = self.views(self.images)
        z_a, z_b = self.embed(torch.cat((view_a, view_b))).chunk(2)
        self.optimiser.zero_grad()
        self.criterion(z_a, z_b, labels).total.backward()
        self.optimiser.step()

    def encoder_only(self) -> None:
        """The encoder's forward and backward pass on as many images."""
        views = self.images.repeat(8, 1, 1, 1)
        self.embed(views).square().mean().backward()
        self.encoder.zero_grad()


def pretraining_steps(device: str, small: bool) -> dict[str, Step]:
    """The step in both precisions, and the encoder's share of it."""
    single = PreTraining(device, small, amp=False)
    half = PreTraining(device, small, amp=True)
    return {
        "step, float32": single.step,
        "encoder alone, float32": single.encoder_only,
        "step, bfloat16": half.step,
        "encoder alone, bfloat16": half.encoder_only,
    }


def host_reads(device: str, small: bool) -> str:
    """Whether a training step ever makes the host wait for the device."""
    if not device.startswith("cuda"):
        return "not measured (CPU)"
    training = PreTraining(device, small, amp=True)
    training.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step()
    except RuntimeError as error:
        return f"at least one: {error}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "0"


def median_times(steps: dict[str, Step], rounds: int, device: str) -> dict[str, float | str]:
    """Medians of alternated runs in ms; a step that runs out of memory says so."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    failed: dict[str, float | str] = {}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            if name in failed:
                continue
            start = clock(device)
            try:
                step()
            except torch.OutOfMemoryError:
                failed[name] = "out of memory"
                torch.cuda.empty_cache()
            if turn > 0:
                times[name].append(clock(device) - start)
    return {name: failed.get(name) or 1e3 * statistics.median(times[name]) for name in steps}


def clock(device: str) -> float:
    """Seconds, once the device has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def print_table(title: str, times: dict[str, float | str]) -> None:
    """One table; ratios count in its first line."""
    first = next(iter(times.values()))
    print(f"\n| {title} | ms | times the first line |\n|---|---|---|")
    for name, value in times.items():
        both = isinstance(value, float) and isinstance(first, float)
        ratio = f"{value / first:.2f}" if both else "-"
        print(f"| {name} | {value if isinstance(value, str) else format(value, '.4g')} | {ratio} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device, small, rounds = args.device, args.small, args.rounds
    if device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device here: try --device cpu --small")
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    print(f"{name}; torch {torch.__version__}; medians of {rounds} alternated rounds")
    if small:
        print("Tiny sizes: the tables' titles and figures mean nothing.")
    print_table("MedMix, 32 images of 256 px", median_times(medmix_steps(device, small), rounds, device))
    for count in (256,) if small else (256, 2048, 16384, 65536):
        title = f"Equation (5), N = {count}, forward + backward"
        print_table(title, median_times(loss_steps(device, count), rounds, device))
    print_table("PaDiM, 256 px", median_times(padim_steps(device, small), min(rounds, 3), device))
    print_table("IGD, 256 px", median_times(igd_steps(device, small), rounds, device))
    print_table("Pre-training, 256 views of 256 px", median_times(pretraining_steps(device, small), rounds, device))
    print(f"\nHost reads in a training step: {host_reads(device, small)}")


if __name__ == "__main__":
    main()
