"""Several runs in one training process: each is what a run of its own would be, and ends by itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import SHORT
from safetensors.torch import load_file
from test_life import until

from accl.config import resolve
from accl.errors import ConfigError
from accl.launch import process
from accl.store.lock import holder
from accl.store.manifest import MODEL, OPTIMIZER
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import START_MARK, State, observe, read_state
from accl.store.waiting import Waiting, write_waiting

SETS = [option.removeprefix("--set=") for option in SHORT]
FOR_EVER = "train.max_steps=100000"


def prepare(root: Path, recipe: str, *sets: str) -> RunDir:
    return process.prepare(root, resolve(recipe, "demo", [*SETS, "train.device=cpu", *sets]).config, ["accl", "train"])


def start_together(*runs: RunDir) -> subprocess.Popen[bytes]:
    """Start runs in one process, as the worker of the queue does."""
    for position, run in enumerate(runs):
        write_waiting(run, Waiting(0.0, float(position)))
    trainer, refused = process.start_together(runs, process.Turn(("accl", "train"), str(runs[0].path.parent), {}))
    assert trainer is not None
    assert refused == {}
    return trainer


def steps(run: RunDir) -> list[tuple[object, ...]]:
    """Every measurement of a step that is no time."""
    asked = "SELECT step, name, value FROM run.metrics WHERE name NOT LIKE '%per_second%' ORDER BY step, name"
    [rows] = query(run.database, (asked, ()))
    return rows


def events(run: RunDir, kind: str) -> list[str]:
    [rows] = query(run.database, ("SELECT message FROM run.events WHERE kind = ?", (kind,)))
    return [message for (message,) in rows]


def assert_same_weights(run: RunDir, other: RunDir) -> None:
    """Hold the last checkpoints of two runs against each other, to the last bit."""
    name = read_state(run).checkpoint_last
    assert name == read_state(other).checkpoint_last != ""
    for file in (MODEL, OPTIMIZER):
        mine, theirs = (load_file(each.checkpoints / name / file) for each in (run, other))
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if mine[key].numpy().tobytes() != theirs[key].numpy().tobytes()] == []


def test_runs_of_one_process_are_what_they_would_be_alone_and_end_by_themselves(tmp_path: Path) -> None:
    alone = prepare(tmp_path, "full", "train.seed=1")
    one, other = prepare(tmp_path, "full", "train.seed=1"), prepare(tmp_path, "baseline", "train.seed=2")
    stopped, failing = prepare(tmp_path, "full", FOR_EVER), prepare(tmp_path, "full", "model.name=/nowhere")
    by_itself, trainer = process.start(alone), start_together(one, stopped, other, failing)
    try:
        until(lambda: read_state(stopped).step > 0)
        assert [(held.pid if (held := holder(run)) else 0) for run in (one, stopped)] == [trainer.pid] * 2
        process.stop(stopped)
        assert trainer.wait() == ConfigError.exit_code  # of the one that failed
        assert by_itself.wait() == 0
    finally:
        trainer.kill()
        by_itself.kill()
    assert [observe(run).state for run in (one, other)] == [State.FINISHED] * 2, one.console.read_text()
    assert "stopped as asked after step" in observe(stopped).reason
    assert observe(failing).state is State.FAILED
    assert "/nowhere" in observe(failing).reason
    assert_same_weights(one, alone)
    assert steps(one) == steps(alone)
    assert read_state(one).latest["test/accuracy"] == read_state(alone).latest["test/accuracy"]
    assert steps(other) != steps(one)
    [shared] = events(one, "shared")
    assert f"shares process {trainer.pid} with {stopped.id}, {other.id}, {failing.id}" in shared
    assert events(alone, "shared") == []
    for run in (one, other, stopped, failing):
        text = run.console.read_text(encoding="utf-8")
        assert text.count(START_MARK) == 1
        assert text.count("info: ready for the first step") == (run != failing)
        assert ("/nowhere" in text) == (run == failing)
