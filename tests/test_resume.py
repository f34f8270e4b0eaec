"""A run that is killed at any moment and resumed ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import run_accl, wait
from safetensors.numpy import load_file

from accl.config import resolve
from accl.launch import process
from accl.store.reader import query
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, observe, read_state, write_state
from accl.training.backends.backend import StepMetrics
from accl.training.backends.reference import ReferenceBackend
from accl.training.interrupt import Interrupt, StoppedAtOnce
from accl.training.loop import Trainer
from accl.training.report import Reporter
from accl.training.setup import build_context

# So many that a run is still at it when a command that was typed at a step arrives.
STEPS = 70
COMMAND = [
    *("train", "full", "--profile", "demo", "--detach"),
    f"--set=train.max_steps={STEPS}",
    "--set=train.checkpoint_every=6",
    "--set=eval.every=35",
    "--set=eval.max_questions=60",
    "--set=curriculum.warmup_steps=10",
    "--set=curriculum.update_every=5",
    "--set=memory_bank.start_step=8",
]
# Clocks and speeds are the only thing two equal runs may differ in.
TIMED = ("train/questions_per_second",)


def start(root: Path, fork: bool = True) -> RunDir:
    done = run_accl(*COMMAND, "--runs", str(root), fork_trainers=fork)
    assert done.returncode == 0, done.stderr
    return find_run(root, done.stdout.strip())


def kill(run: RunDir) -> bool:
    """Whether that came before its end."""
    pid = read_state(run).pid
    assert pid
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return wait(run) is State.CRASHED


def recorded(run: RunDir) -> dict[str, Any]:
    marks = ",".join("?" * len(TIMED))
    names = ("metrics", "curriculum", "confusion", "evals", "task_evals", "predictions", "questions")
    rows = query(
        run.database,
        (f"SELECT step, epoch, name, value FROM run.metrics WHERE name NOT IN ({marks}) ORDER BY name, step", TIMED),
        ("SELECT step, policy, weights, drawn FROM run.curriculum ORDER BY step", ()),
        ("SELECT step, kind, CAST(matrix AS VARCHAR), counts FROM run.confusion ORDER BY kind, step", ()),
        ("SELECT * EXCLUDE seq FROM run.evals ORDER BY split, step, name", ()),
        ("SELECT * FROM run.task_evals ORDER BY split, step, task", ()),
        ("SELECT * FROM run.predictions ORDER BY split, question_id", ()),
        ("SELECT * FROM run.questions ORDER BY id", ()),
    )
    return dict(zip(names, rows, strict=True))


def tensors(run: RunDir) -> dict[str, bytes]:
    """Every tensor of the last checkpoint, to the bit."""
    folder = run.checkpoints / read_state(run).checkpoint_last
    return {
        f"{file.name}:{name}": array.tobytes()
        for file in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(file).items()
    }


def assert_equal(a: RunDir, b: RunDir) -> None:
    left, right = recorded(a), recorded(b)
    for table in left:
        assert left[table], table
        assert left[table] == right[table], table
    assert tensors(a) == tensors(b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = start(tmp_path_factory.mktemp("whole"), fork=False)  # so that the others have another hash seed
    assert wait(run) is State.FINISHED
    return run


# Before the first checkpoint, or not, and then wherever chance has it.
@pytest.mark.parametrize(("first", "kills"), [([], 1), pytest.param([1], 3, marks=pytest.mark.slow)])
def test_killed_runs_resume_to_the_very_same_end(
    tmp_path: Path, uninterrupted: RunDir, first: list[int], kills: int
) -> None:
    run = start(tmp_path)
    for step in (*first, *sorted(random.Random(os.getpid()).sample(range(7, STEPS - 2), kills))):
        if wait(run, step) is State.FINISHED or not kill(run):
            break
        done = run_accl("resume", run.id, "--detach", "--runs", str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert wait(run) is State.FINISHED, observe(run)
    assert_equal(run, uninterrupted)


def test_a_run_that_begins_anew_shows_no_step_that_it_had_before_it_was_killed(tmp_path: Path) -> None:
    config = resolve("full", "demo", ["train.device=cpu"]).config
    run = process.prepare(tmp_path, config, [])
    write_state(run, read_state(run).changed(step=7))
    reporter = Reporter(run)
    context = build_context(config, lambda _: None)
    shown: list[int] = []

    class Backend(ReferenceBackend):
        def step(self, step: int) -> StepMetrics:
            shown.append(reporter.state.step)
            raise StoppedAtOnce

    trainer = Trainer(run, context, Backend(context), reporter, Interrupt())
    assert not trainer.resume()
    with pytest.raises(StoppedAtOnce):
        trainer.train()
    reporter.close(State.STOPPED, "", 130)
    assert shown == [0]
    assert read_state(run).step == 0


# The runs of the other tests are compared with the same one to the bit, and have more to say where they differ.
@pytest.mark.slow
def test_equal_configuration_and_seed_give_the_same_run_to_the_bit(tmp_path: Path, uninterrupted: RunDir) -> None:
    again = start(tmp_path)
    assert wait(again) is State.FINISHED
    assert_equal(again, uninterrupted)


def test_stopped_runs_resume_to_the_very_same_end(tmp_path: Path, uninterrupted: RunDir) -> None:
    run = start(tmp_path)
    wait(run, 9)
    pid = read_state(run).pid
    assert os.getsid(pid) == pid  # it has let go of its terminal
    done = run_accl("stop", run.id, "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    state = observe(run)
    assert state.state is State.STOPPED
    assert state.checkpoint_last == f"step-{state.step:08d}"
    again = run_accl("stop", run.id, "--runs", str(tmp_path))
    assert again.returncode == 7
    assert "not running" in again.stderr
    resumed = run_accl("resume", run.id, "--runs", str(tmp_path))  # in the foreground
    assert resumed.returncode == 0, resumed.stderr
    assert "finished" in resumed.stdout + resumed.stderr
    assert wait(run) is State.FINISHED
    assert_equal(run, uninterrupted)
    finished = run_accl("resume", run.id, "--runs", str(tmp_path))
    assert finished.returncode == 7
    assert "has finished" in finished.stderr
