"""The real command line, each command in a process of its own, without a terminal.

Most of the time of a command is its imports, so these processes are forks of one that has imported them, and so are the
trainers that they start (see `command_server.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from select import select
from typing import Any, NamedTuple

from command_server import read_early

TIMEOUT_S = 240.0
ROOM = " " * 8192  # for the words of a program that is forked
# They have a server to themselves in the usual environment: a fork of one that has imported torch takes longer. Not so
# `evaluate`, whose process is started as users have it.
STARTING = {"ablate", "ask", "demo", "export", "queue", "restart", "resume", "sweep", "test", "train", "wait"}

SERVER = Path(__file__).with_name("command_server.py")


class Printed(NamedTuple):
    """Exit code of a command, and the bytes that it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return (self.stdout + self.stderr).decode()


def run_command(
    *words: str,
    cwd: Path | None = None,
    before: Path | None = None,
    typed: str = "",
    fork_trainers: bool = True,
    **env: str,
) -> Printed:
    """Run a command, in this process's environment with ``env``.

    Args:
        before: a Python file that is executed in the command's process before it runs.
        typed: what it can read from stdin.
        fork_trainers: whether processes that it starts may be forks as well, in place of interpreters that are started.
    """
    environment = {**os.environ, "COLUMNS": "200", **env}
    # What Python itself reads from it, it reads when it starts.
    read_at_start = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    # What is executed before would change what forks inherit, and another environment what was imported for them.
    starts = fork_trainers and before is None and "--help" not in words and not STARTING.isdisjoint(words[:1])
    starts = starts and read_early(environment) == _usual()
    server = _server(frozenset(read_at_start.items()), starts)
    request = [words, os.fspath(cwd or Path.cwd()), environment, before and os.fspath(before), typed, starts]
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
def _usual() -> dict[str, Any]:
    return read_early(os.environ)


@cache
def _server(environment: frozenset[tuple[str, str]], _starts: bool) -> subprocess.Popen[bytes]:
    """Return a process that runs commands, either those that start programs or all others, and ends with this one."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-P", os.fspath(SERVER), ROOM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=others | dict(environment))


def modules_after(*words: str) -> tuple[set[str], str]:
    """Return what a command has imported at its end, and what it printed on stdout."""
    code = "import sys; from accl.cli.main import app\ntry: app()\nfinally: print('\\n', *sys.modules, flush=True)"
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    return set(modules.split()), "\n".join(printed)
