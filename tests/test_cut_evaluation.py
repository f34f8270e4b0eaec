"""A stop that comes while a run is evaluated: what was trained is saved at once, and evaluated when it is resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_accl
from test_resume import COMMAND, STEPS, assert_equal, uninterrupted  # noqa: F401 - a fixture

from accl.config import resolve
from accl.errors import INTERRUPTED
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import State, observe

# Train, with a SIGTERM before the second batch, or else the first, of one of the evaluations.
CUT = """
import os, signal, sys
from accl.training import __main__ as trainer, evaluate as module

real, counted = module.evaluate, iter(range(1, 100))

def evaluate(*words, progress, **options):
    batches = iter(range(2))
    cut = next(counted) == int(sys.argv[2])
    def interrupted():
        if cut and next(batches, 1) == 1 - (len(words[2]) <= options["batch_size"]):
            os.kill(os.getpid(), signal.SIGTERM)
        progress()
    return real(*words, progress=interrupted, **options)

module.evaluate = evaluate
sys.exit(trainer.main([sys.argv[1]]))
"""


def train_until_cut(run: RunDir, evaluation: int) -> None:
    done = subprocess.run([sys.executable, "-c", CUT, str(run.path), str(evaluation)], capture_output=True, text=True)
    assert done.returncode == INTERRUPTED, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_stopped_in_its_evaluations_ends_as_one_that_never_was(
    tmp_path: Path,
    uninterrupted: RunDir,  # noqa: F811
) -> None:
    overrides = [word.removeprefix("--set=") for word in COMMAND if word.startswith("--set=")]
    run = process.prepare(tmp_path, resolve("full", "demo", overrides).config, [])
    # The first validation; then, after that one is done again, the last; then the test after the last validation.
    for evaluation, step, phase in ((1, 35, "validation"), (3, STEPS, "validation"), (2, STEPS, "test")):
        train_until_cut(run, evaluation)
        state = observe(run)
        assert (state.state, state.step, state.interrupted_by) == (State.STOPPED, step, "SIGTERM"), phase
        assert state.checkpoint_last == f"step-{step:08d}"
    resumed = run_accl("resume", run.id, "--runs", str(tmp_path))
    assert resumed.returncode == 0, resumed.stderr
    assert_equal(run, uninterrupted)
