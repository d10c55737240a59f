"""Everything random about the lesions of a batch, in one order of draws."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medmix._checks import check_mask
from medmix._random import assign_classes, drawing_device, small_tensor, uniform_source
from medmix.lesions.alterations import NOISE_POOL, Drawn
from medmix.lesions.options import LesionOptions
from medmix.lesions.parameters import LesionParameters
from medmix.lesions.placement import NUM_LAYOUTS, draw_donors, sample_layout, spread_sizes


def draw_parameters(
    options: LesionOptions,
    batch_shape: Sequence[int],
    generator: torch.Generator | None,
    foreground: Tensor | None,
    device: torch.device | str | None,
) -> LesionParameters:
    """Draw everything random; the arguments are those of `MedMix.forward_parameters`.

    The order of the draws decides what a seed gives: it stays as it is.
    """
    batch, channels, height, width = batch_shape
    rows = 1 if options.same_on_batch else batch
    drawn_on = drawing_device(generator, device)
    uniform = uniform_source(generator, drawn_on)

    def per_lesion(*sizes: int) -> Tensor:
        return uniform(rows, options.slots, *sizes)

    classes = assign_classes(uniform(rows), uniform(1), len(options.num_lesions))
    size_order = per_lesion().argsort(dim=0)
    drawn: dict[str, Tensor] = {
        "size_order": size_order,
        "batch_prob": (uniform(rows) < options.p).float(),
        "num_lesions": small_tensor(options.num_lesions, classes)[classes],
        "layout": spread_sizes(uniform(rows, NUM_LAYOUTS + 1, options.slots, 4), size_order),
        "donor_offset": draw_donors(per_lesion(), batch),
        "donor_corner": per_lesion(2),
    }
    drawn |= options.draw_look(per_lesion, channels)
    sides = [band.side for band in options.bands(batch_shape)]
    pool_size = NOISE_POOL + channels * max(sides) ** 2
    noise_pool = torch.randn(pool_size, generator=generator, device=drawn_on)
    drawn |= options.draw_further(per_lesion, channels)
    if options.same_on_batch:
        drawn = _repeat_over_batch(drawn, batch)
    drawn["noise_pool"] = noise_pool
    drawn = {name: value.to(device or drawn_on) for name, value in drawn.items()}
    layout = drawn.pop("layout")
    if foreground is not None:
        check_mask(foreground, torch.Size(batch_shape), layout.device, "foreground")
    drawn["centre"], drawn["radius"] = sample_layout(layout, (height, width), options.size, foreground)
    drawn["window_sides"] = torch.tensor(sides)
    drawn["forward_input_shape"] = torch.tensor(batch_shape)
    return LesionParameters.from_dict(drawn)


def _repeat_over_batch(drawn: Drawn, batch: int) -> Drawn:
    """The parameters (1, ...) of one image for a whole batch, whose lesions are all of one size."""
    slots = drawn["size_order"].shape[1]
    repeated = {name: value.expand(batch, *value.shape[1:]).clone() for name, value in drawn.items()}
    rows = torch.arange(batch, device=drawn["size_order"].device)
    return repeated | {"size_order": rows[:, None].expand(-1, slots)}
