"""Faster convolutions for training with frozen batch-norm statistics on a CPU.

A batch-norm layer in evaluation mode is an affine map per channel, so it folds into the convolution before it. And a
depthwise convolution of a map of 4 x 4 or fewer pixels is a small matrix per channel: as a batched product its backward
pass takes a twentieth of the time. Both change results by rounding only.
"""

import copy
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

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
        if self._is_small_and_depthwise(x):
            return self.activation(_depthwise_as_matrices(x, weight, bias, self.convolution.stride[0]))
        return self.activation(self._convolve(x, weight, bias))

    def _is_small_and_depthwise(self, x: Tensor) -> bool:
        convolution = self.convolution
        depthwise = convolution.groups == convolution.in_channels == convolution.out_channels
        padded_like_tensorflow = isinstance(convolution, Conv2dSame) or convolution.stride[0] == 1
        square = x.shape[2] == x.shape[3] <= LARGEST_SIDE
        return depthwise and padded_like_tensorflow and square

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        convolution = self.convolution
        padding = convolution.padding
        if isinstance(convolution, Conv2dSame):
            x = pad_same(x, convolution.kernel_size, convolution.stride, convolution.dilation)
            padding = 0
        return F.conv2d(x, weight, bias, convolution.stride, padding, convolution.dilation, convolution.groups)


def folded_twin(backbone: nn.Module) -> nn.Module:
    """Copy a backbone with folded convolutions; parameters and buffers are shared, not copied."""
    shared = {id(tensor): tensor for tensor in [*backbone.parameters(), *backbone.buffers()]}
    twin = copy.deepcopy(backbone, shared)
    for module in list(twin.modules()):
        children = list(module.named_children())
        for (first_name, first), (second_name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, first_name, FoldedConvolution(first, second))
                setattr(module, second_name, nn.Identity())
    return twin.eval()


def _depthwise_as_matrices(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolve (B, C, S, S) with one kernel (C, 1, K, K) per channel as C matrices (S*S, T*T)."""
    batch, channels, side, _ = x.shape
    kernel = weight.shape[-1]
    taps = _taps(side, kernel, stride).to(weight)  # (K*K, S*S, T*T)
    out_side = -(-side // stride)
    matrices = (weight.flatten(1) @ taps.flatten(1)).view(channels, side * side, out_side * out_side)
    rows = x.permute(1, 0, 2, 3).reshape(channels, batch, side * side)
    out = torch.baddbmm(bias[:, None, None], rows, matrices)  # (C, B, T*T)
    out = out.view(channels, batch, out_side, out_side).transpose(0, 1)
    return out.contiguous(memory_format=torch.channels_last)


@cache
def _taps(side: int, kernel: int, stride: int) -> Tensor:
    """Say by 0 or 1 which kernel entry joins which input with which output pixel, (K*K, S*S, T*T); "same" padding."""
    out_side = -(-side // stride)
    padding = max((out_side - 1) * stride + kernel - side, 0) // 2
    entry = torch.arange(side)[:, None] + padding - torch.arange(out_side) * stride  # (S, T)
    joined = (entry == torch.arange(kernel)[:, None, None]).float()  # (K, S, T)
    taps = torch.einsum("ais,bjt->abijst", joined, joined)
    return taps.reshape(kernel * kernel, side * side, out_side * out_side)
