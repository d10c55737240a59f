"""The switch to a running maximum."""

from msacl_loss.similarity.kappas import Kappas


def test_both_sides_of_the_switch_to_a_running_maximum() -> None:
    assert not Kappas(1.0, 40.0).are_large
    assert Kappas(1.0, 40.1).are_large
