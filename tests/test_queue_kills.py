"""Workers, trainers and waiting commands are killed at random, and every run still ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_life import kill

from accl.cli.waiting import wait_for
from accl.config import resolve
from accl.launch import process, queue
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import State, observe

SETS = [
    *("train.max_steps=60", "train.checkpoint_every=10", "eval.every=20", "eval.max_questions=60"),
    *("curriculum.warmup_epochs=0.005", "curriculum.update_every=5"),
]
KILLS, ROUND_S = 9, 120.0
MEASURED = (
    "SELECT step, name, value FROM run.metrics WHERE name LIKE 'train/%' AND name NOT LIKE '%per_second' ORDER BY ALL"
)
ANSWERED = "SELECT split, question_id, predicted, probabilities FROM run.predictions ORDER BY ALL"


def prepared(root: Path) -> list[RunDir]:
    configs = [resolve(arm, "demo", [*SETS, f"train.seed={s}"]).config for arm in ("baseline", "full") for s in (1, 2)]
    return [process.prepare(root, config, ["accl"], "trial") for config in configs]


def resting(runs: list[RunDir]) -> list[RunDir]:
    states = [(run, observe(run).state) for run in runs]
    return [run for run, state in states if state is State.QUEUED or not (state.active or state is State.FINISHED)]


def measured(run: RunDir) -> object:
    return query(run.database, (MEASURED, ()), (ANSWERED, ()))


@pytest.mark.slow
def test_runs_that_are_put_into_the_queue_again_after_any_kill_end_as_undisturbed_ones(tmp_path: Path) -> None:
    disturbed, calm = prepared(tmp_path / "disturbed"), prepared(tmp_path / "calm")
    queue.enqueue(tmp_path / "calm", calm, jobs=2)
    assert wait_for(tmp_path / "calm", calm) == 0

    root, chance, killed = tmp_path / "disturbed", random.Random(0), []
    command = [sys.executable, "-m", "accl.cli.main", "wait", "--runs", str(root)]
    while len(killed) < KILLS and any(observe(run).state is not State.FINISHED for run in disturbed):
        queue.enqueue(root, resting(disturbed), jobs=2)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as terminal:
            before = sum(observe(run).step for run in disturbed)
            wanted, deadline = chance.randint(0, 12), time.monotonic() + ROUND_S
            while terminal.poll() is None and sum(observe(run).step for run in disturbed) < before + wanted:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            victim = chance.choice(("worker", "trainer", "terminal"))
            if victim == "worker" and (pid := queue.worker_pid(root)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            elif victim == "trainer":
                kill(chance.choice(disturbed))
            killed.append(victim)
            terminal.kill()
    while unfinished := resting(disturbed):
        queue.enqueue(root, unfinished, jobs=2)
        wait_for(root, disturbed)
    wait_for(root, disturbed)
    assert set(killed) == {"worker", "trainer", "terminal"}
    for run, like in zip(disturbed, calm, strict=True):
        assert observe(run).state is State.FINISHED
        assert measured(run) == measured(like)
