"""Write docs/bad-input.md: what every public entry point does with every kind of bad input.

    python tests/bad_input/print_table.py

The tables are those that `test_bad_input.py` checks, which also fails while the page is not what they say.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import detector_table
import folder_table
import loss_table
import medmix_table
from bad_cases import CASES, Cell, Entry, NoMeaning, Refused, Works

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bad-input.md"
TABLES = {
    "medmix": medmix_table.ENTRIES,
    "msacl_loss": loss_table.ENTRIES,
    "detectors": detector_table.ENTRIES + folder_table.ENTRIES,
}
MOST_COLUMNS = 5  # of one table: more do not fit on a page
HEAD = """# What bad input does

Every public entry point with every kind of bad input that we could think of: {refused} of {all} cells are refused with
an error that says what was expected, what came and how to mend it; {works} are no mistake and work as told; {none} have
no meaning. Nothing crashes with an error of somebody else's, and nothing goes wrong in silence; after a refusal the
object works as before it. Values are looked at on the CPU (on a GPU looking would make the host wait).

Each cell is a test; this page is written from them by `python tests/bad_input/print_table.py`, and
`tests/bad_input/test_bad_input.py` fails while it is out of date. A quoted text is a piece of the message.
"""


def page() -> str:
    """The page's text."""
    cells = [cell for entries in TABLES.values() for entry in entries for cell in entry.cells.values()]
    counts = {kind: sum(isinstance(cell, kind) for cell in cells) for kind in (Refused, Works, NoMeaning)}
    text = HEAD.format(all=len(cells), refused=counts[Refused], works=counts[Works], none=counts[NoMeaning])
    for package, entries in TABLES.items():
        text += f"\n## {package}\n"
        for start in range(0, len(entries), MOST_COLUMNS):
            text += "\n" + table(entries[start : start + MOST_COLUMNS])
    return text


def table(entries: list[Entry]) -> str:
    """A row for each case, a column for each entry point."""
    rows = [["", *(f"`{entry.name}`" for entry in entries)], ["---"] * (len(entries) + 1)]
    for case, meaning in CASES.items():
        rows.append([f"{meaning}", *(words(entry.cells[case]) for entry in entries)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def words(cell: Cell) -> str:
    """A cell in a few words."""
    if isinstance(cell, Refused):
        return f'**{cell.error.__name__}** "{cell.message}"'.replace("*args", "\\*args")
    if isinstance(cell, Works):
        return f"works: {cell.result}"
    return f"- {cell.why}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
