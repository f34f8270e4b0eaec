"""Real training processes on the built-in benchmark."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SHORT, Accl, run_accl, wait
from safetensors.numpy import load_file

from accl.bench.whole import read_whole_run
from accl.config import load
from accl.store.columns import RunReader
from accl.store.questions import read_questions
from accl.store.reader import query
from accl.store.rundir import RunDir, list_runs
from accl.store.state import State, observe, read_state

# Longer than any test waits.
LONG = ["--set=train.max_steps=5000", "--set=eval.every=4000"]


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a short run of each arm and return their runs folder."""
    root = tmp_path_factory.mktemp("demo") / "runs"
    for recipe in ("baseline", "contrastive", "full"):
        command = ["train", recipe, "--profile", "demo", "--runs", str(root), *SHORT]
        done = run_accl(*command, fork_trainers=recipe != "full")  # whose times, phases and log are looked at
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def full_run(demo_runs: Path) -> RunDir:
    """Return the short finished run of the `full` arm."""
    return list_runs(demo_runs)[-1]


def test_a_finished_run_has_recorded_everything(full_run: RunDir) -> None:
    reader = RunReader(full_run)
    reader.refresh()
    state = observe(full_run)
    assert (state.state, state.step, state.total_steps, state.exit_code) == (State.FINISHED, 12, 12, 0)
    for name in ("loss", "classification", "contrastive", "accuracy", "anchor_share", "grad_norm", "lr"):
        curve = reader.last.curves[f"train/{name}"]
        assert curve.last.tolist() == list(range(1, 13)), name
        assert not curve.broken.any(), name
    assert reader.last.curves["validation/accuracy"].last.tolist() == [6, 12]
    k = len(reader.last.tasks)
    assert k == 57
    curriculum = reader.last.curriculum
    assert curriculum is not None
    assert curriculum.steps_S.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert curriculum.weights_SK.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert curriculum.drawn_SK.sum(axis=1).tolist() == (16 * curriculum.steps_S).tolist()
    assert curriculum.weights_SK[0] == pytest.approx(1 / k)
    assert curriculum.policy == "confusion"
    assert curriculum.weights_SK[-1].std() > 0
    assert reader.last.confusion["similarity"].matrix.shape == (k, k)
    assert np.nanmax(reader.last.confusion["similarity/test"].matrix) <= 1 + 1e-5
    assert reader.last.confusion["similarity/test"].counts.sum() > 0
    assert {"floor/test/majority_letter", "floor/validation/longest_option"} <= set(reader.last.meta)
    assert len(reader.last.system["rss"][1])
    assert any("random weights" in event.message for event in reader.last.events)
    (ready,) = (event.message for event in reader.last.events if event.kind == "ready")
    assert 0 < float(ready.removeprefix("ready for the first step ").split()[0]) < 240
    phases = {
        key.removeprefix("seconds/"): float(s) for key, s in reader.last.meta.items() if key.startswith("seconds/")
    }
    in_order = ["loading the program", "opening the run", "loading libraries", "loading questions", "tokenising"]
    others = ["loading the encoder", "warming up", "training", "validating", "saving", "testing"]
    assert set(phases) == {*in_order, *others}
    assert all(f"{name} {phases[name]:.1f} s" in ready for name in in_order)
    assert 0 < sum(phases.values()) < state.ended - state.pid_started + 1.1  # psutil rounds a process's start


def test_the_phases_of_a_run_add_up_to_the_time_of_its_command(full_run: RunDir) -> None:
    state = read_state(full_run)
    whole = read_whole_run(full_run, state.started - 10, state.ended + 3)
    assert whole.steps == 12
    assert whole.seconds == pytest.approx(13 + state.ended - state.started)
    assert sum(whole.phases.values()) == pytest.approx(whole.seconds)
    assert whole.phases["the exit"] == pytest.approx(3)
    assert min(whole.phases.values()) > 0
    start = list(whole.phases.values())[: list(whole.phases).index("training")]
    assert whole.ready == pytest.approx(sum(start), abs=0.2)


def test_a_run_records_its_backend_and_why(full_run: RunDir) -> None:
    reader = RunReader(full_run)
    reader.refresh()
    (event,) = [event for event in reader.last.events if event.kind == "backend"]
    assert event.level == "info"
    assert event.message == "steps are computed by the cpu backend"


def test_predictions_agree_with_the_reported_accuracy(full_run: RunDir) -> None:
    rows, evals, tasks = query(
        full_run.database,
        ("SELECT question_id, task, gold, predicted, probabilities FROM run.predictions WHERE split = 'test'", ()),
        ("SELECT value FROM run.evals WHERE split = 'test' AND name IN ('n', 'accuracy') ORDER BY name DESC", ()),
        ("SELECT sum(n), sum(correct) FROM run.task_evals WHERE split = 'test'", ()),
    )
    assert len({row[0] for row in rows}) == len(rows) == evals[0][0] == tasks[0][0]
    correct = sum(gold == predicted for _, _, gold, predicted, _ in rows)
    assert correct / len(rows) == pytest.approx(evals[1][0])
    assert correct == tasks[0][1]
    probabilities = np.array([row[4] for row in rows])
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-4)
    assert (probabilities.argmax(1) == [row[3] for row in rows]).mean() > 0.99


def test_questions_are_recorded_with_the_answers_of_the_test_and_of_the_best_validation(full_run: RunDir) -> None:
    measured = RunReader(full_run).read()
    asked = {split: read_questions(full_run, split) for split in ("test", "validation")}
    right = {split: sum(q.right for q in questions) / len(questions) for split, questions in asked.items()}
    assert right["test"] == pytest.approx(measured.curves["test/accuracy"].newest)
    assert right["validation"] == pytest.approx(measured.curves["validation/accuracy"].median.max())
    assert measured.meta["validation_step"] == measured.meta["tested_step"]
    k = len(measured.tasks)
    for question in asked["test"] + asked["validation"]:
        assert question.text
        assert len(question.options) == len(set(question.options)) == 4
        assert len(set(question.neighbours) - {question.task}) == min(5, k - 1)


def test_arms_do_what_their_recipes_say(demo_runs: Path) -> None:
    read = {load(run.config).recipe: RunReader(run).read() for run in list_runs(demo_runs)}
    assert "train/contrastive" not in read["baseline"].curves
    assert "train/contrastive" in read["contrastive"].curves
    for arm in ("baseline", "contrastive"):
        curriculum = read[arm].curriculum
        assert curriculum is not None
        assert curriculum.policy == "uniform"
        assert curriculum.weights_SK.std() < 1e-6
    baseline = read["baseline"].curves
    assert baseline["train/loss"].median == pytest.approx(baseline["train/classification"].median)
    full = read["full"].curves
    assert full["train/loss"].median == pytest.approx(
        0.7 * full["train/classification"].median + 0.3 * full["train/contrastive"].median, abs=1e-5
    )


def test_equal_seeds_draw_equal_batches_in_both_contrastive_arms_while_weights_are_uniform(demo_runs: Path) -> None:
    read = {load(run.config).recipe: RunReader(run).read() for run in list_runs(demo_runs)}
    drawn = {name: last.curriculum and last.curriculum.drawn_SK[1].tolist() for name, last in read.items()}
    assert drawn["baseline"] == drawn["contrastive"] == drawn["full"]


def test_provenance_names_what_the_result_depends_on(full_run: RunDir) -> None:
    found = full_run.read_json(full_run.provenance)
    assert found["packages"]["torch"]
    assert found["data"]["fingerprint"]
    assert found["data"]["splits"]["test"] > 0
    assert found["model"]["pretrained"] is False
    assert found["model"]["parameters"] > 100_000
    assert found["device"]["type"] == "cpu"
    assert found["determinism"]["seed"] == 42
    assert found["command"][1:3] == ["train", "full"]


def test_checkpoints_are_safetensors_named_as_in_transformers(full_run: RunDir) -> None:
    state = read_state(full_run)
    last = full_run.checkpoints / state.checkpoint_last
    files = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(path.name for path in last.iterdir()) == files
    weights = load_file(last / "model.safetensors")
    assert "encoder.embeddings.word_embeddings.weight" in weights
    assert "encoder.encoder.layer.0.attention.self.query_proj.weight" in weights
    folders = {path.name: (path / "optimizer.safetensors").exists() for path in full_run.checkpoints.iterdir()}
    assert {state.checkpoint_last, state.checkpoint_best} <= folders.keys()
    assert [name for name, whole in sorted(folders.items()) if whole] == ["step-00000008", "step-00000012"]


def test_ctrl_c_in_the_foreground_asks_for_a_checkpoint(tmp_path: Path) -> None:
    foreground = subprocess.Popen(
        [sys.executable, "-m", "accl.cli.main", "train", "full", "-p", "demo", "--runs", str(tmp_path), *SHORT, *LONG],
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background, this suite perhaps, ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list_runs(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run = list_runs(tmp_path)[0]
    wait(run, 2)
    foreground.send_signal(signal.SIGINT)
    _, said = foreground.communicate(timeout=60)
    assert foreground.returncode == 0
    assert "stopping after this step" in said
    assert observe(run).state is State.STOPPED


def test_a_failure_names_its_reason_and_how_to_read_on(tmp_path: Path, accl: Accl) -> None:
    wild = ["--set=optim.lr=100", "--set=optim.weight_decay=100", "--set=optim.warmup_ratio=0"]
    done = accl("train", "full", "--profile", "demo", "--runs", str(tmp_path), *SHORT, *wild)
    assert done.returncode == 9
    assert "The loss is" in done.stderr
    assert "accl logs" in done.stderr
    assert "Traceback" not in done.stderr
    [run] = list_runs(tmp_path)
    assert observe(run).state is State.FAILED


def test_show_prints_the_promised_keys(full_run: RunDir, accl: Accl) -> None:
    done = accl("show", full_run.id, "--format", "json", "--runs", str(full_run.path.parent))
    shown = json.loads(done.stdout)
    assert {"id", "state", "recipe", "profile", "seed", "step", "total_steps", "metrics"} <= set(shown)
    assert (shown["state"], shown["recipe"], shown["step"]) == ("finished", "full", 12)
    assert shown["metrics"]["test/accuracy"] > 0
    text = accl("show", full_run.id, "--runs", str(full_run.path.parent)).stdout
    assert "longest option" in text


def test_runs_lists_every_run_newest_first(demo_runs: Path, accl: Accl) -> None:
    done = accl("runs", "--format", "csv", "--runs", str(demo_runs))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["recipe"] for row in rows] == ["full", "contrastive", "baseline"]
    assert {row["state"] for row in rows} == {"finished"}
    narrow = accl("runs", "--runs", str(demo_runs), COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert "✓ finished" in narrow


def test_logs_print_the_console_and_follow_ends_with_the_run(full_run: RunDir, accl: Accl) -> None:
    root = str(full_run.path.parent)
    whole = accl("logs", full_run.id, "--runs", root).stdout
    assert whole == full_run.console.read_text()
    assert accl("logs", full_run.id, "-n", "1", "--runs", root).stdout == whole.splitlines(keepends=True)[-1]
    assert accl("logs", full_run.id, "--follow", "--runs", root).stdout == whole


def test_the_three_arms_compare_from_the_command_line(demo_runs: Path, accl: Accl) -> None:
    done = accl("compare", "baseline", "contrastive", "full", "--runs", str(demo_runs), "--format", "json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [arm["recipe"] for arm in shown["arms"]] == ["baseline", "contrastive", "full"]
    assert all(0 <= arm["p_holm"] <= 1 for arm in shown["arms"][1:])
