"""Runs that train, as far as a watcher can tell: ``python -m accl.bench.live ROOT``, until its stdin is closed."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from pathlib import Path

from accl.bench.runs import TASKS, TRIVIAL_BASELINES, make_step, new_run, record, record_tasks
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, write_state
from accl.store.writer import Recorder

RUNS = 8
STEPS_PER_S = 20
TOTAL = 100_000


class LiveRun:
    """A run that this process holds and writes as a trainer does."""

    def __init__(self, root: Path, seed: int) -> None:
        self.run: RunDir = new_run(root, "full", seed, started=time.time() + seed)
        self.lock = RunLock.acquire(self.run, TRAINING)
        self.recorder = Recorder(self.run.database)
        record_tasks(self.recorder, TASKS, TRIVIAL_BASELINES)
        self.started = time.time()
        self.step = 0

    def train(self, steps: int) -> None:
        """Record so many steps, and beat."""
        for _ in range(steps):
            self.step += 1
            record(self.recorder, make_step(self.step))
        now = time.time()
        state = RunState(
            State.RUNNING,
            pid=os.getpid(),
            host=socket.gethostname(),
            phase="training",
            step=self.step,
            total_steps=TOTAL,
            heartbeat=now,
            progressed=now,
            started=self.started,
            latest={"train/loss": 1.0},
        )
        write_state(self.run, state)


def main(root: Path) -> None:
    """Write runs until stdin is closed."""
    runs = [LiveRun(root, seed) for seed in range(RUNS)]
    for run in runs:
        run.train(5 * STEPS_PER_S)
    print("training", flush=True)  # noqa: T201
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        for run in runs:
            run.train(STEPS_PER_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
