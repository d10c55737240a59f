"""Directions of embeddings: on the unit sphere, and from a centre, equation (6)."""

import torch
from torch import Tensor


def unit_vectors(z: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide z by its norm: (N, D), at least float32; zero, without gradient, where |z| <= eps."""
    z = at_least_float32(z)
    return centred_directions(z, z.new_zeros(()), eps)


def centred_directions(z: Tensor, centres: Tensor, eps: float) -> Tensor:
    """Equation (6): the unit vector from the centre to z; zero, without gradient, where they coincide."""
    offset = z - centres
    squared = offset.square().sum(dim=-1, keepdim=True)
    apart = squared > eps * eps
    return offset * (torch.where(apart, squared, 1).rsqrt() * apart)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others unchanged: directions near a centre need the bits."""
    return x.float() if x.dtype.itemsize < 4 else x
