"""The real command line, each command in a process of its own, without a terminal.

Most of the time of a command is its imports, so these processes are forks of one that has imported them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from select import select
from typing import NamedTuple

TIMEOUT_S = 240.0

_SERVER = """
import json, os, sys, tempfile
from contextlib import suppress
from importlib import import_module
from accl.cli import compare_output, config, control, labels, logs, progress, prune, runs, show, train, trash
from accl.analysis import claim_runs
from accl.config import explain
from accl.launch import preflight
from accl.store import columns
from accl.cli.main import main

# What takes long to import, and only these commands need.
later = {"figure": ["matplotlib.figure", "matplotlib.backends.backend_pdf"], "tui": ["tui.app", "tui.snapshot"]}

for line in sys.stdin:
    words, folder, environment, before, typed = json.loads(line)
    for name in later.pop(words[0], ()) if words else ():
        with suppress(ImportError):
            import_module(name)
    outputs = [tempfile.TemporaryFile() for _ in range(2)]
    if (child := os.fork()) == 0:
        answers = tempfile.TemporaryFile()
        answers.write(typed.encode())
        answers.seek(0)
        for number, descriptor in enumerate(each.fileno() for each in (answers, *outputs)):
            os.dup2(descriptor, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, code = ["accl", *words], 0
        try:
            if before:
                exec(compile(open(before).read(), before, "exec"), {"__name__": "before"})
            main()
        except SystemExit as left:
            code = left.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the end of the interpreter would touch, and so copy, every page of memory
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for output in outputs:
        output.seek(0)
    os.write(1, json.dumps([code, *(output.read().decode("latin-1") for output in outputs)]).encode() + b"\\n")
"""


class Printed(NamedTuple):
    """Exit code of a command, and the bytes that it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return (self.stdout + self.stderr).decode()


def run_command(
    *words: str, cwd: Path | None = None, before: Path | None = None, typed: str = "", **env: str
) -> Printed:
    """Run a command, in this process's environment with ``env``.

    Args:
        before: a Python file that is executed in the command's process before it runs.
        typed: what it can read from stdin.
    """
    environment = {**os.environ, "COLUMNS": "200", **env}
    # What Python itself reads from it, it reads when it starts.
    read_at_start = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    server = _server(frozenset(read_at_start.items()))
    request = [words, os.fspath(cwd or Path.cwd()), environment, before and os.fspath(before), typed]
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request).encode() + b"\n")
    server.stdin.flush()
    if not select([server.stdout], [], [], TIMEOUT_S)[0]:
        server.kill()
        _server.cache_clear()
        raise TimeoutError(f"accl {' '.join(words)} did not end within {TIMEOUT_S:g} s")
    code, *outputs = json.loads(server.stdout.readline())
    return Printed(code, *(output.encode("latin-1") for output in outputs))


@cache
def _server(environment: frozenset[tuple[str, str]]) -> subprocess.Popen[bytes]:
    """Return a process that runs commands and ends with this one."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-c", _SERVER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=others | dict(environment))


def modules_after(*words: str) -> tuple[set[str], str]:
    """Return what a command has imported at its end, and what it printed on stdout."""
    code = "import sys; from accl.cli.main import app\ntry: app()\nfinally: print('\\n', *sys.modules, flush=True)"
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    return set(modules.split()), "\n".join(printed)
