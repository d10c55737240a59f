"""What `MedMix` has drawn: moving it, cutting it to fewer lesions, and refusing what another MedMix drew."""

from collections.abc import Sequence

import torch
from torch import Tensor

Params = dict[str, Tensor]
ON_HOST = ("forward_input_shape", "window_sides")  # parameters that the composition does not touch


def on_device(params: Params, device: torch.device) -> Params:
    """The parameters where the images are: kornia's containers draw on the CPU."""
    return {name: value.to(device) for name, value in params.items() if name not in ON_HOST}


def with_lesions(params: Params, number: int) -> Params:
    """The same draw with the first `number` lesions in every image: a lesion's place and size do not tell how many."""
    params = {name: value[:, :number] if value.dim() > 1 else value for name, value in params.items()}
    count, gate = torch.full_like(params["num_lesions"], number), torch.ones_like(params["batch_prob"])
    return params | {"num_lesions": count, "batch_prob": gate}


def for_all(params: Params, batch: int) -> Params:
    """The parameters (1, ...) of one image for a whole batch, whose lesions are all of one size."""
    slots, device = params["by_size"].shape[1], params["by_size"].device
    params = {name: value.expand(batch, *value.shape[1:]).clone() for name, value in params.items()}
    return params | {"by_size": torch.arange(batch, device=device)[:, None].expand(-1, slots)}


def drawn_shape(params: Params) -> torch.Size:
    """The shape (B, C, H, W) of the images that parameters were drawn for."""
    if "forward_input_shape" not in params:
        raise ValueError(f"expected params of forward_parameters, got only {sorted(params)}: replay all of them")
    return torch.Size(params["forward_input_shape"].tolist())


def check_params(params: Params, shape: torch.Size, sides: Sequence[int], widths: dict[str, int]) -> None:
    """Refuse parameters that were not drawn for images of this shape, or by another MedMix.

    Args:
        params: Parameters to replay.
        shape: The images' (B, C, H, W).
        sides: The windows' sides that this MedMix works in.
        widths: How many numbers describe its lesions, by parameter.
    """
    drawn = drawn_shape(params)
    if drawn != shape:
        raise ValueError(
            f"expected images {tuple(drawn)}, for which the params were drawn, got {tuple(shape)}: "
            "replay on images of the same shape"
        )
    if params["window_sides"].tolist() != list(sides) or any(params[k].shape[-1] != n for k, n in widths.items()):
        raise ValueError(
            "expected params drawn by a MedMix of the same size, shape and nonlinear, got those of another: "
            "replay with the one that drew them, or with one of the same options"
        )
