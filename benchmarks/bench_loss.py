"""Time and peak memory of the contrastive term, forward + backward, beside other libraries' losses.

    python benchmarks/bench_loss.py                    # about five minutes on one free core, 10 GB of memory
    python benchmarks/bench_loss.py --device cuda

All losses get the same 2 x N/2 views of D = 128 and run in turn in one process, on one thread; the times are medians,
on a CPU of the process's CPU time. Peak memory is what one forward + backward adds to a fresh child process. "Bare
products" is the arithmetic that half of a symmetric similarity matrix cannot do without: four products (logits, logits
again in the backward pass, and the gradient by rows and by columns) and two exponentials of its entries; with the
matrix kept, which costs its memory, three products and one exponential. N is the number of views.
pytorch-metric-learning's NTXentLoss builds N^2 (N - 2) floats, so it only runs at the smallest size.
"""

import argparse
import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import lightly.loss
import torch
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss

from msacl_loss import calibrated_contrastive_loss

DIM, NUM_CLASSES, TEMPERATURE, TILE = 128, 4, 0.2, 512
ROUNDS = {256: 101, 2048: 11, 16384: 3}
OURS = "msacl_loss (eq. 5)"


def make_steps(size: int, device: str) -> dict[str, Callable[[], None]]:
    """One forward + backward of each loss on the same data."""
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = (torch.randn(size // 2, DIM, generator=generator).to(device).requires_grad_() for _ in range(2))
    labels = torch.randint(NUM_CLASSES, (size // 2,), generator=generator).to(device)
    centres = (0.1 * torch.randn(NUM_CLASSES, DIM, generator=generator)).to(device)
    images = torch.arange(size // 2, device=device).repeat(2)
    nt_xent, sup_con, lightly_nt_xent = (
        NTXentLoss(TEMPERATURE),
        SupConLoss(TEMPERATURE),
        lightly.loss.NTXentLoss(TEMPERATURE),
    )
    steps = {
        OURS: lambda: calibrated_contrastive_loss(z_a, z_b, labels, centres, temperature=TEMPERATURE).backward(),
        "lightly NTXentLoss": lambda: lightly_nt_xent(z_a, z_b).backward(),
        "pytorch-metric-learning SupConLoss": lambda: sup_con(torch.cat((z_a, z_b)), images).backward(),
        "bare products, 4 and 2": bare_products(size, device, kept=False),
        "bare products, 3 and 1 (matrix kept)": bare_products(size, device, kept=True),
    }
    if size == min(ROUNDS):
        steps["pytorch-metric-learning NTXentLoss"] = lambda: nt_xent(torch.cat((z_a, z_b)), images).backward()
    return steps


def bare_products(size: int, device: str, kept: bool) -> Callable[[], None]:
    """The products and exponentials of half a similarity matrix, tile by tile, and nothing else."""
    rows, columns = min(TILE, size // 2), min(TILE, size)
    u, v = torch.randn(rows, DIM, device=device) / 12, torch.randn(columns, DIM, device=device) / 12
    by_rows, by_columns = torch.zeros_like(u), torch.zeros_like(v)
    values = torch.empty(rows, columns, device=device)

    def run() -> None:
        for _ in range(size * size // 2 // (rows * columns)):
            for _ in range(1 if kept else 2):
                torch.mm(u, v.T, out=values).exp2_()
            torch.mm(values, v, out=by_rows)
            torch.mm(values.T, u, out=by_columns)

    return run


def clock(device: str) -> float:
    """Seconds: of CPU time on a CPU, of the wall after synchronising elsewhere."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def median_times(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Medians of alternated runs, after one run of each that does not count; in ms."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock(device)
            step()
            times[name].append(clock(device) - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def peak_memory(size: int, name: str, device: str) -> float:
    """MB that one step adds."""
    if device != "cpu":
        step = make_steps(size, device)[name]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    context = multiprocessing.get_context("spawn")  # a fork would inherit freed memory to use up
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_resident_peak, args=(size, name, sender))
    child.start()
    sender.close()  # so that a killed child ends the wait
    try:
        return receiver.recv()
    except EOFError:
        return float("nan")
    finally:
        child.join()


def send_resident_peak(size: int, name: str, sender: "multiprocessing.connection.Connection") -> None:
    """In a child process: the growth of its resident memory, whose high-water mark Linux can reset."""
    torch.set_num_threads(1)
    make_steps(256, "cpu")[name]()  # libraries allocate at their first use
    step = make_steps(size, "cpu")[name]
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    sender.send((resident("VmHWM") - before) / 1e6)


def resident(field: str) -> int:
    """A memory figure of this process in bytes."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def device_name(device: str) -> str:
    """The processor's name."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else platform.machine()}, 1 thread"


def main() -> None:
    """Print one table per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(ROUNDS), choices=list(ROUNDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{device_name(args.device)}; torch {torch.__version__}; D = {DIM}, forward + backward, float32\n")
    for size in args.sizes:
        memory = {name: peak_memory(size, name, args.device) for name in make_steps(size, args.device)}
        times = median_times(make_steps(size, args.device), ROUNDS[size], args.device)
        print(f"| N = {size} ({ROUNDS[size]} rounds) | ms | times ours | peak MB |\n|---|---|---|---|")
        for name, value in times.items():
            print(f"| {name} | {value:.4g} | {value / times[OURS]:.2f} | {memory[name]:.0f} |")
        print(flush=True)


if __name__ == "__main__":
    main()
