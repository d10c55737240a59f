"""Random problems that tests of the loss share."""

import torch
from hypothesis import strategies as st
from torch import Tensor


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views (B, D), labels (B,) and centres (C, D), float64."""
    images, dim, classes = draw(st.integers(2, 12)), draw(st.integers(2, 8)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z_a, z_b = torch.randn(2, images, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (images,), generator=generator)
    return z_a, z_b, labels, torch.randn(classes, dim, generator=generator, dtype=torch.float64)
