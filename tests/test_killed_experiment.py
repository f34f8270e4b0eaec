"""An experiment whose worker, trainers and terminals are killed ends as one that nothing happened to."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import SHORT

from accl.bench.soak.equality import differences
from accl.errors import AcclError
from accl.launch import queue
from accl.store.experiment import read_experiment
from accl.store.lock import holder
from accl.store.rundir import RunDir, run_folders
from accl.store.state import State, observe

ABLATE = ["ablate", "--profile=demo", "--seeds=2", "--jobs=2", *SHORT, "--set=train.max_steps=40"]
VICTIMS = ("worker", "trainer", "terminal", "all")
KILLS, SEED = 8, 1
LIMIT_S = 300.0


@contextmanager
def called(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, as a terminal has one."""
    with open(root.parent / f"{root.name}.log", "ab") as log:
        command = [sys.executable, "-m", "accl.cli.main", *ABLATE, "--runs", str(root)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said(root: Path) -> str:
    return (root.parent / f"{root.name}.log").read_text()


def progress(root: Path) -> int:
    """Steps and changes of state of all runs, a number that grows while anything goes on."""
    done = 0
    for run in run_folders(root):
        with suppress(AcclError):
            state = observe(run)
            done += state.step + 5 * (state.state is not State.QUEUED) + 5 * (state.state is State.FINISHED)
    return done


def kill(root: Path, victim: str, terminal: subprocess.Popen[bytes], choice: random.Random) -> bool:
    """Kill a victim of this kind, and return whether there was one."""
    pids: list[int] = []
    if victim in ("worker", "all") and (worker := queue.worker_pid(root)):
        pids.append(worker)
    trainers = [held.pid for run in run_folders(root) if (held := holder(run)) is not None and held.trains]
    pids += trainers if victim == "all" else choice.sample(trainers, min(1, len(trainers))) * (victim == "trainer")
    if victim in ("terminal", "all") and terminal.poll() is None:
        pids.append(terminal.pid)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


@pytest.mark.slow
def test_an_ablation_that_is_killed_again_and_again_ends_equal(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with called(whole) as terminal:
        assert terminal.wait(LIMIT_S) == 0, said(whole)
    choice = random.Random(SEED)
    victims = list(VICTIMS) * (KILLS // len(VICTIMS))
    choice.shuffle(victims)
    killed, deadline = 0, time.monotonic() + LIMIT_S
    for victim in victims:
        aim = progress(broken) + choice.randint(1, 30)
        with called(broken) as terminal:
            while progress(broken) < aim and terminal.poll() is None:
                assert time.monotonic() < deadline, said(broken)
                time.sleep(0.02)
            killed += kill(broken, victim, terminal, choice)
    assert killed >= KILLS // 2
    with called(broken) as terminal:
        assert terminal.wait(LIMIT_S) == 0, said(broken)

    def members(root: Path) -> dict[tuple[str, int], RunDir]:
        runs = run_folders(root)
        configs = [run.load_config() for run in runs]
        found = {(c.recipe, c.train.seed): run for c, run in zip(configs, runs, strict=True)}
        assert len(found) == len(runs) == 6
        assert {observe(run).state for run in runs} == {State.FINISHED}
        return found

    one, other = members(whole), members(broken)
    assert {read_experiment(run) for run in (*one.values(), *other.values())} == {read_experiment(one["full", 1])}
    assert {key: differences(other[key], run) for key, run in one.items()} == {key: [] for key in one}
    assert queue.waiting(broken) == []
