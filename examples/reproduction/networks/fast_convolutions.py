"""Convolutions that train faster on a CPU; results change by rounding only.

A depthwise convolution of a map of 4 x 4 or fewer pixels is a small matrix per channel: as a batched product its
backward pass takes a twentieth of the time. And a batch-norm layer in evaluation mode is an affine map per channel, so
it folds into the convolution before it.
"""

import copy
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGEST_SIDE = 4  # above it the matrices hold too many zeros


class FoldedConvolution(nn.Module):
    """A convolution and the frozen batch-norm behind it (with its activation, in timm), as one convolution."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm
        self.activation = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) as the two layers do in evaluation mode; gradients reach the parameters of both."""
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = self.convolution.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        return self.activation(_convolve(self.convolution, x, weight, bias))


def folded_twin(backbone: nn.Module) -> nn.Module:
    """Copy a backbone with folded convolutions; parameters and buffers are shared, not copied."""
    twin = _sharing_copy(backbone)
    for module in list(twin.modules()):
        children = list(module.named_children())
        for (first_name, first), (second_name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, first_name, FoldedConvolution(first, second))
                setattr(module, second_name, nn.Identity())
    return twin.eval()


def fast_twin(backbone: nn.Module) -> nn.Module:
    """Copy a backbone with fast convolutions under the same names; parameters and buffers are shared, not copied."""
    twin = _sharing_copy(backbone)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            vars(module)["forward"] = partial(_fast_forward, module)
    return twin


def _sharing_copy(backbone: nn.Module) -> nn.Module:
    shared = {id(tensor): tensor for tensor in [*backbone.parameters(), *backbone.buffers()]}
    return copy.deepcopy(backbone, shared)


def _fast_forward(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    return _convolve(convolution, x, convolution.weight, convolution.bias)


def _convolve(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as the layer does, with other weights of the same shape."""
    if _is_small_and_depthwise(convolution, x):
        out = _depthwise_as_matrices(x, weight, convolution.stride[0])
        return out if bias is None else out + bias[:, None, None]
    padding = convolution.padding
    if isinstance(convolution, Conv2dSame):
        x = pad_same(x, convolution.kernel_size, convolution.stride, convolution.dilation)
        padding = 0
    return F.conv2d(x, weight, bias, convolution.stride, padding, convolution.dilation, convolution.groups)


def _is_small_and_depthwise(convolution: nn.Conv2d, x: Tensor) -> bool:
    depthwise = convolution.groups == convolution.in_channels == convolution.out_channels
    padded_like_tensorflow = isinstance(convolution, Conv2dSame) or convolution.stride[0] == 1
    square = x.shape[2] == x.shape[3] <= LARGEST_SIDE
    return depthwise and padded_like_tensorflow and square


def _depthwise_as_matrices(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve (B, C, S, S) with one kernel (C, 1, K, K) per channel as C matrices (S*S, T*T)."""
    channels, side = x.shape[1:3]
    taps = _taps(side, weight.shape[-1], stride).to(weight)  # (K*K, S*S, T*T)
    matrices = (weight.flatten(1) @ taps.flatten(1)).view(channels, *taps.shape[1:])
    return _MatrixPerChannel.apply(x, matrices)


class _MatrixPerChannel(torch.autograd.Function):
    """Multiply each channel's pixels by its matrix; written out, because torch's products of strided gradients loop."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: Tensor) -> Tensor:
        rows = _channels_first(x).to(matrices.dtype)  # they differ under autocast
        ctx.save_for_backward(rows, matrices)
        return _as_images(rows.bmm(matrices))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, matrices = ctx.saved_tensors
        grad = _channels_first(grad)
        return _as_images(grad.bmm(matrices.mT)), rows.mT.bmm(grad)


def _channels_first(images: Tensor) -> Tensor:
    """Images (B, C, S, S) as contiguous (C, B, S*S)."""
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)  # (B*S*S, C): torch transposes matrices fastest
    return pixels.t().contiguous().view(images.shape[1], images.shape[0], -1)


def _as_images(rows: Tensor) -> Tensor:
    """Undo `_channels_first`; channels last in memory."""
    channels, batch, count = rows.shape
    side = round(count**0.5)
    pixels = rows.view(channels, -1).t().contiguous()  # (B*S*S, C)
    return pixels.view(batch, side, side, channels).permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)  # what is kept must serve training, too
def _taps(side: int, kernel: int, stride: int) -> Tensor:
    """Say by 0 or 1 which kernel entry joins which input with which output pixel, (K*K, S*S, T*T); "same" padding."""
    out_side = -(-side // stride)
    padding = max((out_side - 1) * stride + kernel - side, 0) // 2
    entry = torch.arange(side)[:, None] + padding - torch.arange(out_side) * stride  # (S, T)
    joined = (entry == torch.arange(kernel)[:, None, None]).float()  # (K, S, T)
    taps = torch.einsum("ais,bjt->abijst", joined, joined)
    return taps.reshape(kernel * kernel, side * side, out_side * out_side)
