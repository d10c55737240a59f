"""Measure the house rules of CONTRIBUTING.md and name every place that breaks one.

    python tests/house/check.py            # this repository
    python tests/house/check.py FOLDER     # another one with the three packages

Prints a line per package; exits with 1 if a rule is broken.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("medmix", "msacl_loss", "detectors")
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 60
MAX_NODES_PER_LINE = 10.0
MAX_TOP_FILES = 10

# Everything that is not code: what remains are the lines that a reader must parse.
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def main() -> int:
    """Check all packages below the folder named on the command line."""
    default_root = Path(__file__).resolve().parents[2]
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else default_root
    broken = []
    for package in PACKAGES:
        broken += check_package(root, package)
    for complaint in broken:
        print(complaint)
    print("the house is in order" if not broken else f"{len(broken)} rules broken")
    return 1 if broken else 0


def check_package(root: Path, package: str) -> list[str]:
    """Print the figures of one package and return a sentence for every broken rule."""
    files = sorted((root / package).rglob("*.py"))
    sources = {file.relative_to(root): file.read_text(encoding="utf-8") for file in files}
    density = nodes_per_line(list(sources.values()))
    top_files = len(list((root / package).glob("*.py")))
    print(f"{package}: {len(files)} files, {top_files} on the top floor, {density:.1f} syntax nodes per code line")

    broken = []
    if top_files > MAX_TOP_FILES:
        broken.append(f"{package}: {top_files} files on the top floor, at most {MAX_TOP_FILES}: open a room")
    if density > MAX_NODES_PER_LINE:
        broken.append(f"{package}: {density:.1f} syntax nodes per code line, at most {MAX_NODES_PER_LINE:.0f}")
    for name, source in sources.items():
        broken += long_places(name, source)
    circle = find_circle(import_graph(sources))
    if circle:
        broken.append(f"{package}: import circle {' -> '.join(circle)}")
    return broken


def nodes_per_line(sources: list[str]) -> float:
    """Average number of syntax nodes on a line of code; docstrings and comments are no code."""
    nodes = 0
    lines = 0
    for source in sources:
        tree = ast.parse(source)
        nodes += sum(1 for _ in ast.walk(tree))
        lines += len(code_lines(source) - docstring_lines(tree))
    return nodes / max(lines, 1)


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold a token of code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that belong to a docstring."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def long_places(name: Path, source: str) -> list[str]:
    """A sentence for the file and for each of its functions that is too long."""
    broken = []
    length = source.count("\n")
    if length > MAX_FILE_LINES:
        broken.append(f"{name}: {length} lines, at most {MAX_FILE_LINES}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                broken.append(f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    return broken


def import_graph(sources: dict[Path, str]) -> dict[str, set[str]]:
    """Which module of the package imports which, wherever the import stands (in a function, for types only)."""
    modules = {module_name(path): source for path, source in sources.items()}
    graph: dict[str, set[str]] = {}
    for module, source in modules.items():
        targets = set(imported_names(source))
        # `from package.room import file` names a module; `from package.room.file import Name` something in it.
        found = {name if name in modules else name.rpartition(".")[0] for name in targets}
        graph[module] = (found & set(modules)) - {module}
    return graph


def module_name(path: Path) -> str:
    """`detectors/igd/igd.py` -> `detectors.igd.igd`, `detectors/igd/__init__.py` -> `detectors.igd`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str) -> Iterator[str]:
    """Full dotted names that a source file imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import circle, its first again at the end; empty if there is none."""
    finished: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(graph[module]):
            circle = walk(target, [*path, module])
            if circle:
                return circle
        finished.add(module)
        return []

    for module in sorted(graph):
        circle = walk(module, [])
        if circle:
            return circle
    return []


if __name__ == "__main__":
    sys.exit(main())
