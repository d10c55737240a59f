"""The pytest plugin of run_mutants.py: instead of running the tests once, run some of them for each mutant."""

import ast
import csv
import gc
import importlib
import os
import pickle
import resource
import signal
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import hypothesis
import pytest
from changing import constant_at, put
from mutate import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
LATE = ("sklearn.metrics", "scipy.ndimage", "torch.distributed", "torchvision")  # imported once, not for each mutant
LONGEST = 3.0  # seconds of tests for one mutant, the fastest first
PATIENCE = 4  # times the seconds that the unchanged code took, and 10: then a mutant runs for ever
HANGS = 300  # seconds by the clock after which a mutant waits for ever
MEMORY = 6 * 2**30  # bytes more than the parent's that a mutant may take


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Let hypothesis try the same few cases every time; a failure need not be made small."""
    for name in LATE:
        importlib.import_module(name)
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    settings = {"max_examples": 5, "derandomize": True, "database": None, "deadline": None, "phases": phases}
    hypothesis.settings.register_profile("mutants", **settings)
    hypothesis.settings.load_profile("mutants")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Find out which tests reach which lines, then try every mutant in a fork."""
    modules = os.environ["MUTANT_MODULES"].split()
    items = {item.nodeid: item for item in session.items}
    known: Reach = in_fork(partial(reach, session.items, modules))
    print(f"{len(items)} tests, {sum(known.seconds.values()):.0f} s", flush=True)
    live = [thing for thing in gc.get_objects() if type(thing) is types.FunctionType]
    functions = [function for function in live if function.__code__.co_filename.startswith(str(ROOT))]
    gc.freeze()  # forks share the memory longer

    only = wanted()
    with Path(os.environ["MUTANT_RESULTS"]).open("w", 1, newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("module", "line", "before", "after", "verdict", "tests"))
        forks = Forks(int(os.environ["MUTANT_JOBS"]), table.writerow)
        for module in modules:
            # Nothing changed: else a fork, or another order of the tests, would look like a mutant that was noticed.
            everything = known.tests(module, known.lines[module])
            unchanged = in_fork(partial(test_all, [items[test] for test in everything]))
            assert unchanged is not None, f"the tests of {module} fail without a mutant"
            for mutant, tree in usable_mutants(module, only):
                reached = range(mutant.line, mutant.end_line + 1) if mutant.function else known.lines[module]
                tests = known.tests(module, reached)
                row = [module, mutant.line, mutant.before, mutant.after]
                forks.wait_for_room()
                pid = os.fork()
                if pid == 0:
                    limit = PATIENCE * sum(known.seconds[test] for test in tests)
                    change = partial(put, module, mutant, tree, functions)
                    put_and_test(change, [items[test] for test in tests], limit)
                forks.running[pid] = [*row, len(tests)]
        forks.wait_for_all()
    return True


class Reach(NamedTuple):
    """What the tests reach."""

    seconds: dict[str, float]  # of each test
    lines: dict[str, dict[int, list[str]]]  # of each module the tests that reach each line
    forking: set[str]  # tests that fork: what their children reach is not known

    def tests(self, module: str, reached: Iterable[int]) -> list[str]:
        """Tests that reach these lines, those named like the module first, then the fastest, within `LONGEST`."""
        found = {test for line in reached for test in self.lines[module].get(line, []) if test}
        stem = Path(module).stem
        chosen = []
        room = LONGEST
        for test in sorted(found, key=lambda test: (stem not in test, self.seconds[test])):
            if room > self.seconds[test] and test not in self.forking:
                chosen.append(test)
                room -= self.seconds[test]
        is_distributed = ".distributed" in (ROOT / module).read_text(encoding="utf-8")
        return chosen + (sorted(self.forking) if is_distributed else [])


class Forks:
    """Mutants that are being tried, and where their rows go."""

    def __init__(self, most: int, write: Callable[[list[Any]], Any]) -> None:
        self.most = most
        self.write = write
        self.running: dict[int, list[Any]] = {}  # by the process's number

    def wait_for_room(self) -> None:
        """Let one end if there are as many as may be."""
        if len(self.running) >= self.most:
            self._finish_one()

    def wait_for_all(self) -> None:
        """Let all end."""
        while self.running:
            self._finish_one()

    def _finish_one(self) -> None:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        *row, tests = self.running.pop(pid)
        self.write([*row, {0: "survived", 1: "killed"}.get(code, f"killed by signal {-code}"), tests])


def wanted() -> set[tuple[str, ...]] | None:
    """The mutants to try, or None for all."""
    if "MUTANT_ONLY" not in os.environ:
        return None
    with Path(os.environ["MUTANT_ONLY"]).open(newline="", encoding="utf-8") as file:
        return {(row["module"], row["before"], row["after"]) for row in csv.DictReader(file)}


def in_fork(function: Any) -> Any:
    """What a function returns in a fork: this process stays as it was."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(into, "wb") as pipe:
                pickle.dump(function(), pipe)
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(answer) if answer else None


def reach(items: list[pytest.Item], modules: list[str]) -> Reach:
    """Run all tests to see what they reach; where one fails, this process ends."""
    files = [str(ROOT / module) for module in modules]
    measured = coverage.Coverage(data_file=None, include=files, config_file=False)
    seconds = {}
    forks: list[str] = []
    current = ""
    os.register_at_fork(after_in_parent=lambda: forks.append(current))
    measured.start()
    for item, following in pairwise([*items, None]):
        current = item.nodeid
        measured.switch_context(current)
        start = time.process_time()
        run_test(item, following, f"{current} fails without any mutant")
        seconds[current] = time.process_time() - start
    measured.stop()
    data = measured.get_data()
    lines = {module: data.contexts_by_lineno(file) for module, file in zip(modules, files, strict=True)}
    return Reach(seconds, lines, set(forks))


def test_all(items: list[pytest.Item]) -> bool:
    """Run tests; the first that fails ends this process."""
    for item, following in pairwise([*items, None]):
        run_test(item, following)
    return True


def run_test(item: pytest.Item, following: pytest.Item | None, message: str = "") -> None:
    """Run one test; where it fails, say so and end this process."""
    plugins = item.config.pluginmanager
    plugins.register(Failures(message), "failures")
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    plugins.unregister(name="failures")


class Failures:
    """Ends the process at the first failure."""

    def __init__(self, message: str = "") -> None:
        self.message = message

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called after set-up, call and tear-down of a test."""
        if report.failed:
            if self.message:
                print(self.message, report.longreprtext, file=sys.stderr, flush=True)
            os._exit(1)


def usable_mutants(module: str, only: set[tuple[str, ...]] | None) -> Iterator[tuple[Mutant, ast.Module]]:
    """The mutants of a module in functions and in constants."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for mutant in mutants(tree):
        is_wanted = only is None or (module, mutant.before, mutant.after) in only
        if is_wanted and (mutant.function or constant_at(tree, mutant.line)):
            yield mutant, tree


def put_and_test(put: Callable[[], None], items: list[pytest.Item], limit: float) -> None:
    """Run the tests with the changed code until one fails; ends this process."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silence, stream)
    signal.alarm(HANGS)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 10, int(limit) + 10))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        put()
        test_all(items)
    except BaseException:
        os._exit(1)
    os._exit(0)
