"""Batch-norm over the rows of all processes, on any device: torch's SyncBatchNorm runs on CUDA only.

With it a training under torchrun is the training of one process with the joined batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class JoinedBatchNorm(_BatchNorm):
    """Batch-norm whose statistics in training are those of all processes' rows together."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters = norm._parameters
        self._buffers = norm._buffers
        self.act = getattr(norm, "act", nn.Identity())  # timm's batch-norm holds the activation behind it

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) per channel; N may differ between processes."""
        return self.act(self._normalised(x) if self.training else super().forward(x))

    def _normalised(self, x: Tensor) -> Tensor:
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        count = joined_sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = joined_sum(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = joined_sum(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self.update_running(mean, variance * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def update_running(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as nn.BatchNorm does."""
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance, factor)

    def _check_input_dim(self, x: Tensor) -> None:
        """Take any (N, C, ...)."""


def joined_sum(x: Tensor) -> Tensor:
    """Sum over all processes; so is its gradient."""
    return _JoinedSum.apply(x)


class _JoinedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _JoinedSum.apply(grad)


def join_batch_norm(module: nn.Module) -> nn.Module:
    """Replace the batch-norm layers of a module in place, sharing parameters and buffers; returns the module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                joined = JoinedBatchNorm(child)
                setattr(parent, name, joined.train(child.training))
    return module
