"""Directions, and the rows that have none."""

import torch

from msacl_loss.vectors import at_least_float32, centred_directions, unit_vectors


def test_unit_vectors() -> None:
    z = torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]], requires_grad=True)
    u = unit_vectors(z)
    torch.testing.assert_close(u, torch.tensor([[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]]))
    u.sum().backward()
    assert z.grad[0].abs().sum() > 0
    assert (z.grad[2] == 0).all()


def test_rows_up_to_eps_have_no_direction() -> None:
    row = torch.tensor([[1.0, 0.0]])
    assert (unit_vectors(0.9e-6 * row) == 0).all()
    torch.testing.assert_close(unit_vectors(1.1e-6 * row), row)
    assert (unit_vectors(0.5 * row, eps=0.5) == 0).all()
    torch.testing.assert_close(unit_vectors(0.5 * row, eps=0.49), row)
    assert unit_vectors(0 * row, eps=0.0).tolist() == [[0.0, 0.0]]


def test_directions_from_a_centre() -> None:
    z, centre = torch.tensor([[[4.0, 6.0], [1.0, 2.0]]]), torch.tensor([[[1.0, 2.0]]])
    directions = centred_directions(z, centre, eps=1e-6)
    torch.testing.assert_close(directions, torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]))


def test_only_half_precision_is_widened() -> None:
    for given, kept in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32)):
        assert at_least_float32(torch.ones(1, dtype=given)).dtype == kept
    for dtype in (torch.float32, torch.float64):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == dtype
