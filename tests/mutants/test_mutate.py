"""What a mutant is: one change, the rest as it was, and the change in force where a test looks."""

import ast
import importlib
import sys
import types
from pathlib import Path

import changing
import pytest
from mutate import mutants
from run_mutants import SCOPE, modules_of

CHANGES = {
    "a + b": ["a - b"],
    "a // b": ["a / b"],
    "a < b": ["a <= b"],
    "a is None": ["a is not None"],
    "0 < a <= b": ["0 <= a <= b", "0 < a < b", "1 < a <= b"],
    "a and b": ["a or b"],
    "-a": ["a"],
    "not a": ["a"],
    "x if a else b": ["b if a else x"],
    "a[3]": ["a[4]"],
    "a == 'b'": ["a != 'b'", "a == 'XXbXX'"],
    "a.amin(1)": ["a.amax(1)", "a.amin(2)"],
    "a.sin_()": ["a.cos_()"],
    "f(a, b, c)": ["f(b, a, c)"],
    "f(*a)": [],
    "f(a, key=b)": ["f(a)"],
    "zip(a, a, strict=True)": [],
    "True": ["False"],
    "f'{a + 1}'": [],
}


@pytest.mark.parametrize("before", CHANGES)
def test_changes_of_an_expression(before: str) -> None:
    tree = ast.parse(f"def function():\n    return {before}")
    plain = ast.dump(tree)
    found = []
    for mutant in mutants(tree):
        assert (mutant.line, mutant.function) == (2, "function")
        assert mutant.before == f"return {before}"
        assert ast.unparse(tree.body[0].body[0]) == mutant.after
        found.append(mutant.after.removeprefix("return "))
    assert sorted(found) == sorted(CHANGES[before])
    assert ast.dump(tree) == plain


def test_changes_of_statements() -> None:
    source = """
def function(a: int, b: int = 1, *, c: str = "x") -> "None":
    '''Words.'''
    assert a > 2
    a += 1
    if b:
        raise ValueError("of" + "words")
    for i in a:
        break
    del a
    a.sort()
"""
    found = [(mutant.before, mutant.after) for mutant in mutants(ast.parse(source))]
    assert found == [
        ("1", "2"), ("'x'", "'XXxXX'"), ("a += 1", "a -= 1"), ("a += 1", "pass"), ("a += 1", "a += 2"),
        ("raise ValueError('of' + 'words')", "pass"), ("break", "continue"), ("del a", "pass"), ("a.sort()", "pass"),
    ]  # fmt: skip


SOURCE = """
from functools import cache

LIMIT = 3

class Thing:
    @property
    def double(self):
        return 2 * LIMIT

@cache
def add(a, b=5):
    return a + b
"""


def test_a_mutant_reaches_decorated_functions_defaults_and_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mutable_module.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(changing, "ROOT", tmp_path)
    results = set()
    tree = ast.parse(SOURCE)
    for mutant in mutants(tree):
        module = importlib.import_module("mutable_module")
        functions = [module.add.__wrapped__, module.Thing.double.fget]
        changing.put("mutable_module.py", mutant, tree, functions)
        results.add((mutant.after, module.add(1), module.Thing().double))
        del sys.modules["mutable_module"]
    assert results == {
        ("LIMIT = 4", 6, 8),
        ("return 2 / LIMIT", 6, 2 / 3),
        ("return 3 * LIMIT", 6, 9),
        ("6", 7, 6),
        ("return a - b", -4, 6),
    }
    assert isinstance(functions[0], types.FunctionType)


def test_the_scope_exists() -> None:
    for package in SCOPE:
        assert len(modules_of(package)) >= len(SCOPE[package][0].split())
