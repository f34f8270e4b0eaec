"""A resume goes on only with what the run began with, and from a checkpoint that is whole."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_accl, wait
from spoil import flip

from accl.store.reader import query
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, read_state

SUBJECTS = ("anatomy", "astronomy", "philosophy", "virology")
SETTINGS = [
    *("--set=data.path=questions", "--set=train.batch_size=4", "--set=memory_bank.size=4", "--set=train.max_steps=24"),
    *("--set=train.checkpoint_every=3", "--set=eval.every=6", "--set=curriculum.warmup_steps=2"),
]


def write_questions(folder: Path, answer: str = "A", rows: int = 40) -> None:
    """Write a folder of questions that are right by construction."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        with open(folder / "test" / f"{subject}_test.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [f"Question {i} of {subject}?", f"one {i}", f"two {i}", f"three {i}", f"four {i}", answer]
                for i in range(rows)
            )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with questions and a run that was stopped after a few checkpoints."""
    root = tmp_path_factory.mktemp("stopped")
    write_questions(root / "questions")
    # Longer than it is to be, so that it cannot end before it is stopped.
    done = run_accl(
        *("train", "full", "--profile", "demo", "--detach", "--runs", "runs", *SETTINGS, "--set=train.max_steps=4000"),
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    run = find_run(root / "runs", done.stdout.strip())
    assert wait(run, 13) is State.RUNNING
    assert run_accl("stop", run.id, "--runs", "runs", cwd=root).returncode == 0
    return root


@pytest.fixture
def work(stopped: Path, tmp_path: Path) -> Path:
    """Return a copy of it for one test, where a resumed run soon ends."""
    root = tmp_path / "work"
    shutil.copytree(stopped, root)
    run = run_in(root)
    step = read_state(run).step + 12
    for path in (run.config, run.provenance):
        path.write_text(path.read_text().replace("max_steps: 4000", f"max_steps: {step}"))
        path.write_text(path.read_text().replace('"max_steps": 4000', f'"max_steps": {step}'))
    return root


def run_in(root: Path) -> RunDir:
    return find_run(root / "runs", "last")


def resume(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_accl("resume", "last", *options, "--runs", "runs", cwd=root)


def content(run: RunDir) -> Any:
    return json.loads(run.provenance.read_text())


def events(run: RunDir, kind: str) -> list[tuple[str, str]]:
    [rows] = query(run.database, ("SELECT level, message FROM run.events WHERE kind = ? ORDER BY seq", (kind,)))
    return [(str(level), str(message)) for level, message in rows]


def measured(run: RunDir) -> Any:
    return query(
        run.database,
        ("SELECT max(step), count(*) FROM run.metrics", ()),
        ("SELECT value FROM run.meta WHERE key = 'generation'", ()),
    )


def checkpoints(run: RunDir) -> list[Path]:
    """Return the whole ones, newest first."""
    return sorted((path.parent for path in run.checkpoints.glob("step-*/optimizer.safetensors")), reverse=True)


def test_a_changed_configuration_is_refused_with_both_values_and_goes_on_when_accepted(work: Path) -> None:
    run = run_in(work)
    before, recorded = read_state(run), content(run)
    run.config.write_text(run.config.read_text().replace("lr: 0.001", "lr: 0.002"))
    refused = resume(work)
    assert refused.returncode == 3
    assert "config.optim.lr was 0.001 and is 0.002" in refused.stderr
    assert f"accl resume {run.id} --accept-changes" in refused.stderr
    assert read_state(run) == before
    assert content(run) == recorded
    # Whoever starts the process by hand is told the same.
    by_hand = subprocess.run(
        [sys.executable, "-m", "accl.training", str(run.path)], capture_output=True, text=True, cwd=work, timeout=240
    )
    assert by_hand.returncode == 3
    state = read_state(run)
    assert state.state is State.STOPPED
    assert "config.optim.lr was 0.001 and is 0.002" in state.reason
    assert state.checkpoint_last == before.checkpoint_last

    done = resume(work, "--accept-changes")
    assert done.returncode == 0, done.stderr
    [(level, message)] = events(run, "accepted")
    assert level == "warning"
    assert "config.optim.lr was 0.001 and is 0.002" in message
    now = content(run)
    assert now["config"]["optim"]["lr"] == 0.001  # what it began with
    assert now["starts"][:-1] == recorded["starts"]
    assert now["starts"][-1]["accepted"] == {"config.optim.lr": [0.001, 0.002]}
    assert now["starts"][-1]["command"][-4:] == ["last", "--accept-changes", "--runs", "runs"]


OTHER_QUESTIONS: dict[str, Callable[[Path], Any]] = {
    "answers": lambda root: write_questions(root / "questions", answer="B"),
    "rows": lambda root: write_questions(root / "questions", rows=41),
    "folder": lambda root: (
        write_questions(root / "other", answer="C"),
        (root / "questions").rename(root / "old"),
        (root / "questions").symlink_to("other"),
    ),
}


@pytest.mark.parametrize(
    "change", [pytest.param(c, marks=[pytest.mark.slow][: c != "answers"]) for c in OTHER_QUESTIONS]
)
def test_changed_questions_are_refused_before_anything_is_written(work: Path, change: str) -> None:
    run = run_in(work)
    before, recorded = measured(run), content(run)
    OTHER_QUESTIONS[change](work)
    refused = resume(work)
    assert refused.returncode == 4
    assert f"data.fingerprint was {json.dumps(recorded['data']['fingerprint'])} and is" in refused.stderr
    if change == "rows":
        assert "data.parts.test was 160 and is 164" in refused.stderr
    assert measured(run) == before
    assert content(run) == recorded
    state = read_state(run)
    assert (state.state, state.exit_code) == (State.STOPPED, 4)
    assert "data.fingerprint was" in state.reason


@pytest.mark.slow
def test_accepted_questions_are_recorded_and_not_asked_about_again(work: Path) -> None:
    run = run_in(work)
    recorded = content(run)
    write_questions(work / "questions", answer="B")
    done = resume(work, "--accept-changes", "--detach")
    assert done.returncode == 0, done.stderr
    assert wait(run) is State.FINISHED
    now = content(run)
    assert now["data"] == recorded["data"]
    was, new = now["starts"][-1]["accepted"]["data.fingerprint"]
    assert was == recorded["data"]["fingerprint"] != new
    # As if it had been stopped again.
    state = json.loads(run.state.read_text())
    run.state.write_text(json.dumps(state | {"state": "stopped"}))
    again = resume(work)
    assert again.returncode == 0, again.stderr
    assert content(run)["starts"][-1]["accepted"] == {}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "parameters", 7),
        ("model", "shapes", "00"),
        ("model", "tokenizer", "00"),
        ("model", "encoder", {"hidden_dropout_prob": 0.25}),
        ("data", "tasks", 3),
        ("data", "tokens", "00"),
        ("curriculum", "fixed_weights", "00"),
    ],
)
@pytest.mark.slow
def test_another_model_is_refused(work: Path, section: str, key: str, value: Any) -> None:
    run = run_in(work)
    recorded = content(run)
    recorded[section][key] = value if not isinstance(value, dict) else recorded[section][key] | value
    run.provenance.write_text(json.dumps(recorded))
    refused = resume(work)
    assert refused.returncode == {"data": 4}.get(section, 7)
    assert f"{section}.{key}" in refused.stderr
    assert read_state(run).state is State.STOPPED


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(work: Path) -> None:
    run = run_in(work)
    last, before = checkpoints(run)
    damage = random.choice(["model.safetensors", "optimizer.safetensors", "state.json"])
    flip(last / damage)
    os.chmod(run.checkpoints, 0o755)
    (run.checkpoints / ".DS_Store").write_text("")
    (last / "notes.txt").write_text("mine")
    done = resume(work)
    assert done.returncode == 0, done.stderr
    [(level, message)] = events(run, "checkpoint")
    assert level == "warning"
    assert str(last / damage) in message
    assert events(run, "resumed") == [("info", f"resumed from step {int(before.name[5:])}")]
    assert (last / "notes.txt").exists() or (last.with_name(f"{last.name}.old1") / "notes.txt").exists()
    assert read_state(run).state is State.FINISHED


@pytest.mark.slow
def test_without_a_whole_checkpoint_nothing_is_lost_or_loaded(work: Path) -> None:
    run = run_in(work)
    before = measured(run)
    for folder in checkpoints(run):
        flip(folder / "model.safetensors")
    failed = resume(work)
    assert failed.returncode == 12
    assert "no whole checkpoint" in failed.stderr
    assert "from a backup, or train a new run" in failed.stderr
    assert measured(run) == before


@pytest.mark.slow
def test_a_run_that_lost_its_state_goes_on_from_its_newest_checkpoint(work: Path) -> None:
    run = run_in(work)
    newest = checkpoints(run)[0]
    state = json.loads(run.state.read_text())
    run.state.write_text(json.dumps(state | {"checkpoint_last": "", "checkpoint_best": ""}))
    done = resume(work)
    assert done.returncode == 0, done.stderr
    assert events(run, "resumed") == [("info", f"resumed from step {int(newest.name[5:])}")]


@pytest.mark.slow
def test_damaged_weights_of_the_best_validation_are_said_at_once_and_never_tested(work: Path) -> None:
    run = run_in(work)
    best = read_state(run).checkpoint_best
    # Validation that cannot choose other weights: no later one is better than all right.
    for folder in checkpoints(run):
        rewrite_state(folder, best_score=2.0, best_step=int(best[5:]))
    flip(run.checkpoints / best / "model.safetensors")
    failed = resume(work)
    assert failed.returncode != 0
    assert "cannot be tested" in failed.stderr
    assert str(run.checkpoints / best / "model.safetensors") in failed.stderr
    assert any("damaged, and cannot be tested" in message for _, message in events(run, "checkpoint"))
    [[(tested,)]] = query(run.database, ("SELECT count(*) FROM run.predictions WHERE split = 'test'", ()))
    assert tested == 0


def rewrite_state(folder: Path, **values: Any) -> None:
    """Change the scalars of a checkpoint as saving would have written them."""
    from accl.store import manifest
    from accl.training.tensorfile import write_synced

    path = folder / manifest.PROGRESS
    text = json.dumps(json.loads(path.read_text()) | values)
    path.unlink()
    entries = manifest.read(folder) | {manifest.PROGRESS: write_synced(path, [text.encode()])}
    (folder / manifest.MANIFEST).write_bytes(manifest.render(int(folder.name[5:]), entries))


@pytest.mark.slow
def test_a_run_of_an_earlier_accl_goes_on_and_is_told_what_cannot_be_checked(work: Path) -> None:
    run = run_in(work)
    old = content(run)
    old = {key: old[key] for key in old if key not in ("config", "starts", "run", "curriculum")}
    for section, new in (("data", ("tasks", "tokens", "folder")), ("model", ("shapes", "encoder"))):
        old[section] = {key: value for key, value in old[section].items() if key not in new}
    run.provenance.write_text(json.dumps(old))
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").unlink()
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({k: v for k, v in state.items() if k not in ("format", "run")}))
    before = sorted(run.checkpoints.rglob("*.safetensors"))
    done = resume(work)
    assert done.returncode == 0, done.stderr
    assert any("carries no checksums" in message for _, message in events(run, "checkpoint"))
    assert any("an earlier accl did not record" in message for _, message in events(run, "provenance"))
    assert content(run)["data"]["fingerprint"] == old["data"]["fingerprint"]
    assert len(content(run)["starts"]) == 1
    assert all(path.exists() for path in before)  # not listed by a manifest: never removed


DAMAGED = ("", "[]", "3", '{"data": 3}', '{"config": []}', '{"starts": {}}')


@pytest.mark.parametrize("text", ["{", '{"starts": [3]}', *(pytest.param(t, marks=pytest.mark.slow) for t in DAMAGED)])
def test_a_damaged_provenance_is_named(work: Path, text: str) -> None:
    run = run_in(work)
    run.provenance.write_text(text)
    refused = resume(work)
    assert refused.returncode in (7, 12)
    assert str(run.provenance) in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_another_machine_is_said_and_not_refused(work: Path) -> None:
    run = run_in(work)
    recorded = content(run)
    recorded["packages"]["torch"] = "1.0"
    run.provenance.write_text(json.dumps(recorded))
    done = resume(work)
    assert done.returncode == 0, done.stderr
    [(level, message)] = events(run, "provenance")
    assert level == "warning"
    assert 'packages.torch was "1.0" and is' in message
    assert content(run)["packages"] == recorded["packages"]
    assert content(run)["starts"][-1]["versions"]["torch"] != "1.0"


@pytest.mark.parametrize("text", ['{"run": "x"}', ""])
def test_a_run_whose_beginning_is_not_known_does_not_go_on_by_itself(work: Path, text: str) -> None:
    run = of_unknown_beginning(work, text)
    refused = resume(work)
    assert refused.returncode == 12
    assert "--accept-changes" in refused.stderr
    assert read_state(run).state is State.STOPPED


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{"run": "x"}', ""])
def test_a_run_whose_beginning_is_not_known_goes_on_when_that_is_accepted(work: Path, text: str) -> None:
    of_unknown_beginning(work, text)
    accepted = resume(work, "--accept-changes")
    assert accepted.returncode == 0, accepted.stderr


def of_unknown_beginning(work: Path, text: str) -> RunDir:
    """Return the run with its provenance replaced by a text, or removed if there is none."""
    run = run_in(work)
    run.provenance.unlink()
    if text:
        run.provenance.write_text(text)
    return run
