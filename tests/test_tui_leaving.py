"""A real app on a real terminal, which is left, hung up or gone while a run trains."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import pytest
from conftest import SHORT, wait
from factory import finished_run

from accl.store.lock import holder
from accl.store.rundir import RunDir, list_runs
from accl.store.state import State, observe

# A shell's part: a session of its own, whose controlling terminal this is.
SHELL = """
import fcntl, os, signal, subprocess, sys, termios
os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, and the app would too
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
accl, root = [sys.executable, "-m", "accl.cli.main"], sys.argv[1]
if sys.argv[2:]:
    subprocess.run([*accl, *sys.argv[2:], "--detach", "--runs", root], check=True)
os.execv(sys.executable, [*accl, "tui", "--runs", root])
"""
FOOT = re.compile(rb"quit")  # what the app has drawn once it is there
LONG = [word for word in SHORT if "max_steps" not in word]


class Terminal:
    """A terminal in which a shell starts a run, if one is given, and then the app."""

    def __init__(self, root: Path, *train: str) -> None:
        self.ours, theirs = pty.openpty()
        self._drawn = threading.Event()
        env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        env |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "36", "XDG_STATE_HOME": str(root / "state")}
        self.app = subprocess.Popen(
            [sys.executable, "-c", SHELL, str(root / "runs"), *train],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
        )
        os.close(theirs)
        self._closing, self._close = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._drawn.wait(120), "the app did not come"

    def _read(self) -> None:
        drawn = b""
        with suppress(OSError):
            while self._closing not in select([self.ours, self._closing], [], [])[0]:
                data = os.read(self.ours, 1 << 16)
                drawn = drawn[-100:] + data
                if FOOT.search(drawn):
                    self._drawn.set()

    def end(self, how: str) -> int:
        """Leave the app in a way, and return its exit code."""
        if how == "hung up":
            self.app.send_signal(signal.SIGHUP)
        elif how == "killed":
            self.app.kill()
        elif how == "closed":
            self.close()
        else:
            os.write(self.ours, how.encode())
        return self.app.wait(timeout=60)

    def close(self) -> None:
        """Close the terminal's end, as a window that is closed or an ssh that breaks off does."""
        if self.ours >= 0:
            os.write(self._close, b"x")
            self._reader.join()  # a terminal that somebody reads from stays open
            for descriptor in (self.ours, self._closing, self._close):
                os.close(descriptor)
            self.ours = -1


@contextmanager
def terminal(root: Path, *train: str) -> Iterator[Terminal]:
    opened = Terminal(root, *train)
    try:
        yield opened
    finally:
        opened.app.kill()
        opened.app.wait()
        opened.close()
        for run in list_runs(root / "runs"):
            if (held := holder(run)) is not None and held.pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.killpg(held.pid, signal.SIGKILL)


def test_the_app_is_left_and_ends_with_its_terminal(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs", curves=False, predictions=False)
    for how, code in {"q": 0, "closed": -signal.SIGHUP}.items():
        with terminal(tmp_path) as opened:
            assert opened.end(how) == code


@pytest.mark.slow
@pytest.mark.parametrize("how", ["q", "\x03", "hung up", "killed", "closed"])
def test_a_run_started_in_the_same_terminal_goes_on(tmp_path: Path, how: str) -> None:
    with terminal(tmp_path, "train", "full", "--profile", "demo", *LONG, "--set=train.max_steps=100000") as opened:
        [run] = list_runs(tmp_path / "runs")
        assert wait(run, 2) is State.RUNNING
        code = opened.end(how)
        assert code in (0, -signal.SIGHUP, -signal.SIGKILL)
        opened.close()
        assert wait(run, observe(run).step + 20) is State.RUNNING
        assert not RunDir(run.path).stop.exists()
