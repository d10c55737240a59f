"""Every public entry point with every kind of bad input: refused in words that help, or right; usable afterwards.

The tables are printed on docs/bad-input.md by `python tests/bad_input/print_table.py`.
"""

from pathlib import Path

import pytest
import torch
from bad_cases import CASES, Entry, NoMeaning, Refused, Works, spoilt
from print_table import PAGE, TABLES, page

import detectors
import medmix
import msacl_loss

CELLS = [
    pytest.param(entry, case, id=f"{entry.name}-{case}")
    for entries in TABLES.values()
    for entry in entries
    for case, cell in entry.cells.items()
    if not isinstance(cell, NoMeaning)
]
NO_ENTRY_POINTS = {"__version__", "AnomalyDetector", "AnomalyPrediction", "LossTerms", "MedMixOutput", "NotFittedError"}


def act(entry: Entry, case: str, thing: object, folder: Path) -> object:
    cell = entry.cells[case]
    if cell.act is not None:
        return cell.act(thing, folder)
    return entry.give(thing, spoilt(entry.right(), case))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("entry", "case"), CELLS)
def test_cell(entry: Entry, case: str, tmp_path: Path) -> None:
    cell = entry.cells[case]
    torch.manual_seed(0)
    thing = entry.fresh()
    before = entry.use(thing) if entry.same else None
    if isinstance(cell, Refused):
        with pytest.raises(cell.error) as refusal:
            act(entry, case, thing, tmp_path)
        assert cell.message in str(refusal.value)
        assert "executed" not in [path.name for path in tmp_path.iterdir()]
    if isinstance(cell, Works):
        assert cell.check(act(entry, case, thing, tmp_path))
    after = entry.use(thing)
    assert after.isfinite().all()
    if isinstance(cell, Refused) and before is not None:
        assert torch.equal(before, after)


def test_no_cell_is_blank() -> None:
    for entries in TABLES.values():
        for entry in entries:
            assert entry.cells.keys() == CASES.keys(), entry.name


@pytest.mark.parametrize("package", [medmix, msacl_loss, detectors], ids=lambda package: package.__name__)
def test_every_public_name_has_a_row(package: object) -> None:
    rows = {entry.name.split(".")[0] for entry in TABLES[package.__name__]}
    assert rows == set(package.__all__) - NO_ENTRY_POINTS


def test_the_page_is_up_to_date() -> None:
    """Else: python tests/bad_input/print_table.py."""
    assert PAGE.read_text(encoding="utf-8") == page()
