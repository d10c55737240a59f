"""Put a mutant into a running process: the code and the defaults of functions, or a constant."""

import ast
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutate import Mutant

ROOT = Path(__file__).resolve().parents[2]


def constant_at(tree: ast.Module, line: int) -> ast.Assign | None:
    """The constant of a module that is set at a line, if there is one."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and statement.lineno <= line <= (statement.end_lineno or 0):
            is_constant = "Literal" not in ast.dump(statement) and "__" not in ast.unparse(statement.targets[0])
            return statement if is_constant else None
    return None


def put(module: str, mutant: Mutant, tree: ast.Module, functions: list[types.FunctionType]) -> None:
    """Replace, in this process, what a mutant changes: the code and defaults of functions, or a constant."""
    path = str(ROOT / module)
    name = module.removesuffix(".py").replace("/", ".")
    names = vars(sys.modules[name])
    if not mutant.function:
        put_constant(name, names, constant_at(tree, mutant.line))
        return
    new = {(code.co_name, code.co_firstlineno): code for code in codes(compile(tree, path, "exec"))}
    # Every live function of this file: behind decorators, operators and classes too.
    for function in functions:
        old = function.__code__
        if old.co_filename == path and old.co_name != "<lambda>":
            function.__code__ = new[old.co_name, old.co_firstlineno]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == mutant.function:
            put_defaults(node, [function for function in functions if is_made_by(function, node, path)], names)


def put_defaults(node: ast.FunctionDef, functions: list[types.FunctionType], names: dict[str, Any]) -> None:
    """Set the defaults that stand in the changed source."""
    defaults = tuple(evaluate(default, names) for default in node.args.defaults)
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    keyword_defaults = {argument.arg: evaluate(default, names) for argument, default in pairs if default}
    for function in functions:
        function.__defaults__ = defaults or None
        function.__kwdefaults__ = keyword_defaults or None


def is_made_by(function: types.FunctionType, node: ast.FunctionDef, path: str) -> bool:
    """Whether the source's node defines the function."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    code = function.__code__
    return (code.co_filename, code.co_name, code.co_firstlineno) == (path, node.name, first)


def put_constant(module: str, names: dict[str, Any], statement: Any) -> None:
    """Set a constant in its module and wherever it was imported."""
    constant = statement.targets[0].id
    value = evaluate(statement.value, names)
    old = names[constant]
    for other in list(sys.modules.values()):
        holds = getattr(other, "__dict__", {}).get(constant) is old
        if holds and getattr(other, "__name__", "").split(".")[0] == module.split(".")[0]:
            setattr(other, constant, value)


def evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.fix_missing_locations(ast.Expression(node)), "<mutant>", "eval"), names)


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all in it."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from codes(constant)
