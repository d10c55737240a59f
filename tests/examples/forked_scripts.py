"""Run scripts in forks of one process that has imported the libraries: own processes that need no time to start.

`ScriptRunner` starts this file as that process. It reads a request a line, as JSON: the script with its arguments, the
folder to run in, the files for what it prints; and answers with the fork's process id, then with its exit code.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = (  # that take long to import
    "detectors",
    "kornia.augmentation",
    "medmix",
    "msacl_loss",
    "sklearn.metrics",
    "timm",
    "torchvision.models",
)


class ScriptRunner:
    """Starts scripts, one after the other."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__]
        self.server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def stop(self) -> None:
        """Close the requests, which ends the process."""
        self.server.communicate()

    def start(self, script: str, folder: Path, *arguments: object) -> int:
        """Start a script that lies in the folder, there; returns its process id."""
        for path in printed_files(folder):
            path.write_text("")
        request = {"command": [script, *map(str, arguments)], "folder": str(folder)}
        assert self.server.stdin is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return self._answer()

    def finish(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """Wait for the script that was started in the folder."""
        code = self._answer()
        output, errors = (path.read_text() for path in printed_files(folder))
        return subprocess.CompletedProcess([], code, output, errors)

    def _answer(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


def printed_files(folder: Path) -> tuple[Path, Path]:
    """Where a script's output and errors go."""
    return folder / "output.txt", folder / "errors.txt"


def wait_for_a_line(folder: Path, seconds: float = 120) -> None:
    """Wait until the script of the folder has printed one."""
    output, errors = printed_files(folder)
    latest = time.monotonic() + seconds
    while "\n" not in output.read_text():
        assert time.monotonic() < latest, errors.read_text()
        time.sleep(0.05)


def serve() -> list[str]:
    """Answer requests until there are no more; returns twice: in each fork with the command to run, and in the end."""
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        request = json.loads(line)
        fork = os.fork()
        if fork == 0:
            become_script(request)
            return request["command"]
        print(fork, flush=True)
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return []


def become_script(request: dict[str, Any]) -> None:
    """Make this fork look as if Python had just been started with the script."""
    folder = Path(request["folder"])
    os.chdir(folder)
    for number, path in enumerate(printed_files(folder), start=1):
        file = os.open(path, os.O_WRONLY)
        os.dup2(file, number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = request["command"]
    sys.path[0] = str(folder)
    # A shell's background job inherits deafness to Ctrl-C; the script must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    command = serve()
    if command:
        runpy.run_path(command[0], run_name="__main__")
