"""Random numbers from a generator or from torch's own, classes shared out over a batch, and small constants."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Uniform = Callable[..., Tensor]  # sizes -> random numbers in [0, 1)


def drawing_device(generator: torch.Generator | None, wanted: torch.device | str | None) -> torch.device:
    """Where numbers are drawn: on the generator's device, else where they are wanted."""
    if generator is not None:
        return generator.device
    return torch.device(wanted or "cpu")


def uniform_source(generator: torch.Generator | None, device: torch.device) -> Uniform:
    """Return a function that draws numbers in [0, 1) of the sizes it is given."""

    def uniform(*sizes: int) -> Tensor:
        return torch.rand(sizes, generator=generator, device=device)

    return uniform


def assign_classes(
    uniform: Tensor,
    shift: Tensor,
    num_classes: int,
) -> Tensor:
    """Classes 0..C-1 in random order, as evenly as rows allow, from uniform numbers (B,) and (1,): (B,) int64."""
    # a random permutation of the rows, turned by a random class: else small batches would never see the last ones
    first_class = (shift * num_classes).long()
    return (uniform.argsort() + first_class) % num_classes


def small_tensor(values: Sequence[float], like: Tensor) -> Tensor:
    """A few numbers as a tensor (N,) of the dtype and on the device of another."""
    # filled where it is needed: a copy from the host would make the host wait for the device
    numbers = [like.new_full((), value) for value in values]
    return torch.stack(numbers)
