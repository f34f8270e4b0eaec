"""`accl demo`: three arms side by side in a folder of their own, watched, and left without stopping them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait

from accl.cli.tui import named_runs
from accl.store.state import State

ARMS = ["baseline", "contrastive", "full"]


@pytest.fixture(name="demo")
def _demo(tmp_path: Path) -> subprocess.Popen[str]:
    """The command without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "accl.cli.main", "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "200"},
    )


def folder(parent: Path) -> Path:
    (found,) = parent.glob("accl-demo-*")
    return found


@pytest.mark.slow
def test_three_arms_train_side_by_side_and_are_compared(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    printed, progress = demo.communicate(timeout=600)
    assert demo.returncode == 0, progress
    root = folder(tmp_path)
    assert [wait(run) for run in named_runs(root, ARMS)] == [State.FINISHED] * 3
    assert "Holm p" in printed
    for arm in ARMS:
        assert f"{arm:<12}training 0/1,000" in progress
    assert progress.splitlines()[-1].split() == ["to", "remove", "it:", "rm", "-r", str(root)]


@pytest.mark.slow
def test_what_is_left_goes_on_and_is_stopped_as_the_last_lines_say(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    assert demo.stderr is not None
    for line in demo.stderr:
        if "training 0/" in line:
            break
    demo.send_signal(signal.SIGINT)
    last = demo.communicate(timeout=60)[1].splitlines()
    runs = named_runs(folder(tmp_path), ARMS)
    assert demo.returncode != 0
    for run in runs:
        wait(run, step=1)
    (stops,) = (line.partition(":")[2] for line in last if line.startswith("training goes on"))
    for command in stops.split(";"):
        subprocess.run([sys.executable, "-m", "accl.cli.main", *command.split()[1:]], check=True, timeout=120)
    assert [wait(run) for run in runs] == [State.STOPPED] * 3
