"""Small changes of Python source, one at a time: what a test suite should notice.

A mutant changes one operator, comparison, number, word, argument, keyword, branch or statement. Left alone are types,
docstrings, assertions (`strict=True` too), decorators and the words of error messages: they decide nothing; and what
a class's or module's body does, but for constants.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# Functions and methods that are taken for each other; an underscore behind them (torch, in place) stays.
PAIRS = (
    "min max",
    "amin amax",
    "argmin argmax",
    "cummin cummax",
    "minimum maximum",
    "any all",
    "floor ceil",
    "sin cos",
)
OTHER_NAME: dict[str, str] = {}
for pair in PAIRS:
    first, second = pair.split()
    OTHER_NAME |= {first: second, second: first}

LINE = 100  # characters of the text that stands for a mutant in a table
Parts = tuple[ast.AST, ...]


class Mutant(NamedTuple):
    """One change: where (function is "" in the module's or a class's own statements), and its text before and after."""

    line: int
    end_line: int
    function: str
    before: str
    after: str


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Yield every mutant; while it is out, `tree` is changed accordingly (and has places, so that it compiles)."""
    for node, parents, function in _places(tree, (), ""):
        for change in changes(node):
            if ast.dump(change) == ast.dump(node):
                continue  # two equal arguments swapped
            parent = parents[-1]
            field, index = _slot(parent, node)
            holder = _context(node, parents)
            before = ast.unparse(holder)
            _put(parent, field, index, ast.fix_missing_locations(ast.copy_location(change, node)))
            # In a table: the smallest whole that fits a line. A statement taken away leaves `pass`.
            after = "pass" if isinstance(change, ast.Pass) else ast.unparse(change if holder is node else holder)
            statement = next((part for part in (node, *parents[::-1]) if isinstance(part, ast.stmt)), node)
            yield Mutant(statement.lineno, _end(statement), function, *(_short(text) for text in (before, after)))
            _put(parent, field, index, node)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in place of this one."""
    if isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _other_values(node.value))
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
        yield _changed(node, "op", OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        yield from (
            _changed(node, "ops", [*node.ops[:i], OPERATORS[type(op)](), *node.ops[i + 1 :]])
            for i, op in enumerate(node.ops)
        )
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    if isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    if isinstance(node, ast.Call):
        yield from _calls(node)
    if isinstance(node, ast.Break):
        yield ast.Continue()
    if isinstance(node, ast.Continue):
        yield ast.Break()
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if is_call or isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
        yield ast.Pass()


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Calls with two arguments swapped, without a keyword, or of the opposite function."""
    if len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2]):
        yield _changed(node, "args", [node.args[1], node.args[0], *node.args[2:]])
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            yield _changed(node, "keywords", node.keywords[:i] + node.keywords[i + 1 :])
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    other = OTHER_NAME.get(name.rstrip("_"))
    if other:
        field = "attr" if isinstance(node.func, ast.Attribute) else "id"
        underscores = name[len(name.rstrip("_")) :]
        yield _changed(node, "func", _changed(node.func, field, other + underscores))


def _other_values(value: object) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1]
    return [f"XX{value}XX"] if isinstance(value, str) else []


def _places(node: ast.AST, parents: Parts, function: str) -> Iterator[tuple[ast.AST, Parts, str]]:
    """Every node that may be changed, with the nodes around it and the outermost function that holds it."""
    inside = (*parents, node)
    for child in _children(node):
        if not function and isinstance(child, ast.FunctionDef):
            yield from _places(child, inside, child.name)
            continue
        yield child, inside, function
        yield from _places(child, inside, function)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What lies in a node, but for what is left alone."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, ast.FunctionDef):
        yield from [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
        yield from (statement for statement in node.body if not _is_docstring(statement))
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "decorator_list", "bases", "type_comment", "ctx"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child):
                yield child


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _slot(parent: ast.AST, node: ast.AST) -> tuple[str, int | None]:
    """The field of the parent that holds the node, and the place in it where that is a list."""
    owners: list[ast.AST] = [parent, parent.args] if isinstance(parent, ast.FunctionDef) else [parent]
    for owner in owners:
        for field, value in ast.iter_fields(owner):
            if value is node:
                return field, None
            if isinstance(value, list) and any(item is node for item in value):
                return field, next(i for i, item in enumerate(value) if item is node)
    raise AssertionError("the node does not lie in its parent")


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    owner = parent.args if isinstance(parent, ast.FunctionDef) and field.endswith("defaults") else parent
    if index is None:
        setattr(owner, field, node)
    else:
        getattr(owner, field)[index] = node


def _context(node: ast.AST, parents: Parts) -> ast.AST:
    """The largest expression or simple statement around a node that fits a line."""
    best = node
    for parent in parents[::-1]:
        if not isinstance(parent, ast.expr | ast.stmt | ast.keyword) or hasattr(parent, "body"):
            break
        if len(ast.unparse(parent)) > LINE:
            break
        best = parent
    return best


def _changed(node: Any, field: str, value: object) -> Any:
    changed = copy.copy(node)
    setattr(changed, field, value)
    return changed


def _end(statement: Any) -> int:
    """Last line of a statement's own text: of `if`, `for`, `with` the line before their body.

    A function stands for its defaults here: what its body does, they decide.
    """
    if isinstance(statement, ast.FunctionDef):
        return statement.end_lineno or statement.lineno
    body: Callable[[int], Any] | list[ast.stmt] | None = getattr(statement, "body", None)
    return max(statement.lineno, body[0].lineno - 1) if isinstance(body, list) else statement.end_lineno


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE else line[: LINE - 4] + " ..."
