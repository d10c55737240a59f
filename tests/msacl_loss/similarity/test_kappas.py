"""The switch to a running maximum."""

from msacl_loss.similarity.kappas import Kappas


def test_both_sides_of_the_switch_to_a_running_maximum() -> None:
    assert not Kappas(1.0, 40.0).are_large
    assert Kappas(1.0, 40.1).are_large


def test_both_factors() -> None:
    kappas = Kappas.calibrated(temperature=0.2, alpha=2.0)
    assert kappas == (2.5, 5.0)
    assert kappas.times(3.0) == (7.5, 15.0)
    for same, other, are_large in ((40.0, 1.0, False), (1.0, 40.0, False), (40.5, 1.0, True), (1.0, 40.5, True)):
        assert Kappas(same, other).are_large == are_large
