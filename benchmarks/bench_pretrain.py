"""Where the time of a pre-training step goes: views, encoder, loss, optimiser; as examples/pretrain.py trains.

    python benchmarks/bench_pretrain.py                    # CPU, one thread, ResNet18, 8 images of 64 and of 256 px
    python benchmarks/bench_pretrain.py --amp              # the encoder in bfloat16

8 images make 64 views: 4 classes, each image twice. Each part is timed in turn in one process and its median taken: of
the process's CPU time, or of the wall clock on a GPU. The encoder is its forward and backward pass.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

from medmix import MedMix, MultiClassViews, WeakAugmentation
from msacl_loss import MSACLLoss


class Step:
    """One training step, cut into its parts."""

    def __init__(self, images: int, side: int, device: str, amp: bool) -> None:
        self.images = torch.rand(images, 3, side, side, device=device)
        self.amp = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=amp)
        self.make_views = MultiClassViews(MedMix(), WeakAugmentation(side))
        self.encoder = resnet18(num_classes=128).to(device, memory_format=torch.channels_last)
        self.loss = MSACLLoss(num_classes=4, weights=(1, 1, 1, 0), augmentation_dim=128).to(device)
        parameters = [*self.encoder.parameters(), *self.loss.parameters()]
        self.optimiser = torch.optim.SGD(parameters, 0.03, momentum=0.9, weight_decay=3e-4)
        self.views()
        self.loss.fit_centres(torch.nn.Identity(), [(torch.randn(len(self.labels), 128, device=device), self.labels)])

    def views(self) -> None:
        """Draw both views of each class."""
        view_a, view_b, self.labels = self.make_views(self.images)
        self.inputs = torch.cat([view_a, view_b])

    def forward(self) -> None:
        """Embed the views."""
        with self.amp:
            self.values = self.encoder(self.inputs.contiguous(memory_format=torch.channels_last))

    def loss_and_gradient(self) -> None:
        """Equation (1) and its gradient with respect to the embeddings."""
        self.embedded: Tensor = self.values.detach().float().requires_grad_()
        z_a, z_b = F.normalize(self.embedded).chunk(2)
        self.loss(z_a, z_b, self.labels, features=(z_a, z_b)).total.backward()

    def backward(self) -> None:
        """Carry it through the encoder."""
        self.values.backward(self.embedded.grad.to(self.values.dtype))

    def update(self) -> None:
        """Step and forget the gradients."""
        self.optimiser.step()
        self.optimiser.zero_grad()

    def parts(self) -> dict[str, Callable[[], None]]:
        """What a step does, in order."""
        return {
            "views": self.views,
            "encoder, forward": self.forward,
            "loss": self.loss_and_gradient,
            "encoder, backward": self.backward,
            "optimiser": self.update,
        }


def measure(step: Step, rounds: int, device: str) -> dict[str, float]:
    """Medians of the parts' seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in step.parts()}
    for turn in range(rounds + 1):
        for name, part in step.parts().items():
            start = clock(device)
            part()
            if turn > 0:  # the first turn warms up
                seconds[name].append(clock(device) - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def clock(device: str) -> float:
    """Seconds: of the process, which other jobs disturb less; of the wall clock once a GPU has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--amp", action="store_true", help="the encoder under bfloat16 autocast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {args.threads} thread(s)"
    precision = "bfloat16" if args.amp else "float32"
    print(f"{name}, torch {torch.__version__}, {args.images} images, encoder in {precision}, {args.rounds} rounds")
    for side in args.sizes:
        seconds = measure(Step(args.images, side, args.device, args.amp), args.rounds, args.device)
        total = sum(seconds.values())
        print(f"\n| ResNet18, {side} px | ms | share of the step |\n|---|---|---|")
        for part, value in seconds.items():
            print(f"| {part} | {1e3 * value:.1f} | {value / total:.1%} |")
        others = sum(value for part, value in seconds.items() if not part.startswith("encoder"))
        print(f"| **all but the encoder** | {1e3 * others:.1f} | {others / total:.1%} |", flush=True)


if __name__ == "__main__":
    main()
