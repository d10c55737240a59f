"""The table of survivors is explained, and its figures stand in the docs."""

from run_mutants import FIGURES, LEAST, ROOT, SCOPE, SURVIVORS, modules_of, read


def test_every_survivor_is_of_a_module_in_scope_and_explained() -> None:
    modules = {module for package in SCOPE for module in modules_of(package)}
    for row in read(SURVIVORS):
        assert row["module"] in modules
        assert row["explanation"], row
        assert row["before"] != row["after"]


def test_the_figures_stand_in_the_docs() -> None:
    page = (ROOT / "docs/trust.md").read_text(encoding="utf-8")
    rows = read(FIGURES)
    assert [row["package"] for row in rows] == [*SCOPE, "all"]
    for row in rows:
        line = "| {package} | {mutants} | {killed} | {survived} | {share} % |".format(**row)
        assert line in page, line
        assert float(row["share"]) >= 100 * LEAST
    assert int(rows[-1]["survived"]) == len(read(SURVIVORS))
