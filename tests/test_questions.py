"""What an evaluation asked is recorded once beside the answers, and read back from runs of any age and state."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest
import typer
from click.testing import Result
from factory import SIX_TASKS, finished_run
from typer.testing import CliRunner

from accl.analysis.results import read_results
from accl.bench.runs import record_tasks
from accl.cli import show as show_command
from accl.cli.options import Split
from accl.errors import AbsentError, ConfigError, DamagedError, QueryError
from accl.store.answered import Answered, arms_beside
from accl.store.columns import RunReader
from accl.store.questions import Question, read_answers, read_questions
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.spool import append_spool, spool_of
from accl.store.writer import Recorder

NEVER_S = 3600.0
OPTIONS = ["no", "yes"]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    return run


def begin(run: RunDir) -> Recorder:
    recorder = Recorder(run.database, interval=NEVER_S)
    record_tasks(recorder, SIX_TASKS, {})
    return recorder


def validate(recorder: Recorder, step: int, predicted: Sequence[int], names: str = "ab") -> None:
    recorder.meta({"validation_step": str(step)})
    recorder.predictions([("validation", q, 0, 1, p, [0.5, 0.5]) for q, p in zip(names, predicted, strict=True)])
    recorder.questions([(q, 0, f"text of {q}", OPTIONS, 1, [step]) for q in names])


def predicted(run: RunDir, split: str = "validation") -> dict[str, int]:
    return {question.id: question.predicted for question in read_questions(run, split)}


def drop_questions(run: RunDir, *then: str) -> None:
    """Make the database of a run what an earlier version wrote."""
    with duckdb.connect(str(run.database)) as connection:
        for sql in ("DROP TABLE questions", *then):
            connection.execute(sql).fetchall()


def test_questions_are_read_with_their_answers_in_order(tmp_path: Path) -> None:
    questions = read_questions(finished_run(tmp_path, correct=[True, False, True]))
    assert [question.id for question in questions] == ["test/00000", "test/00001", "test/00002"]
    assert [question.right for question in questions] == [True, False, True]
    options = [f"Option {i}" for i in range(4)]
    probabilities = pytest.approx([0.1, 0.1, 0.7, 0.1])
    expected = ("test/00001", 1, "What is asked in test/00001?", options, 1, 2, probabilities, [2, 3, 4, 5, 0])
    assert [getattr(questions[1], name) for name in Question.__slots__] == list(expected)


def test_a_better_validation_replaces_answers_and_questions_and_no_other_split(run: RunDir) -> None:
    recorder = begin(run)
    recorder.predictions([("test", "t", 0, 1, 0, [0.5, 0.5])])
    recorder.questions([("t", 0, "text", OPTIONS, 1, [])])
    for step, answers in ((1, (0, 0)), (2, (0, 1))):
        validate(recorder, step, answers)
        recorder.flush()
    assert predicted(run) == {"a": 0, "b": 1}
    append_spool(spool_of(run.database), {"predictions": [["validation", "a", 0, 1, 1, [0.5, 0.5]]]})
    assert predicted(run) == {"a": 1, "b": 1}  # before the spool is merged
    recorder.close()
    assert predicted(run) == {"a": 1, "b": 1}
    assert [question.neighbours for question in read_questions(run, "validation")] == [[2], [2]]
    assert predicted(run, "test") == {"t": 0}


@pytest.mark.parametrize(
    ("step", "validated", "stands"), [(20, True, True), (19, True, False), (20, False, False), (-1, True, False)]
)
def test_a_resumed_run_keeps_the_answers_of_a_validation_that_it_does_not_repeat(
    run: RunDir, step: int, validated: bool, stands: bool
) -> None:
    recorder = begin(run)
    validate(recorder, 20, (0, 1))
    recorder.flush()
    recorder.rewind(step, validated)
    recorder.close()
    counts = query(run.database, *((f"SELECT count(*) FROM run.{t}", ()) for t in ("predictions", "questions")))
    assert counts == [[(2 * stands,)]] * 2


def test_a_database_begun_anew_gets_questions_and_answers_again(run: RunDir) -> None:
    recorder = begin(run)
    validate(recorder, 1, (0, 1))
    recorder.flush()
    run.database.write_bytes(b"rubbish" * 1000)
    recorder.event(0.0, "info", "kind", "words")
    recorder.close()
    assert predicted(run) == {"a": 0, "b": 1}


def test_questions_that_wait_in_the_spool_are_read(run: RunDir) -> None:
    begin(run).close()
    waiting = {"predictions": [["test", "q", 0, 1, 1, [0.5, 0.5]]], "questions": [["q", 0, "text", OPTIONS, 1, []]]}
    append_spool(spool_of(run.database), waiting)
    assert predicted(run, "test") == {"q": 1}
    Recorder(run.database).close()
    assert not spool_of(run.database).exists()
    assert predicted(run, "test") == {"q": 1}


def test_what_is_no_text_is_replaced_in_options_as_well(run: RunDir) -> None:
    recorder = begin(run)
    recorder.predictions([("test", "q", 0, 0, 0, [0.5, 0.5])])
    recorder.questions([("q", 0, "\ud800", ["\udfff", "ä"], 0, [])])
    recorder.close()
    [question] = read_questions(run)
    assert (question.text, question.options) == ("?", ["?", "ä"])


def test_a_run_of_an_earlier_version_is_read_and_gets_the_table_when_it_goes_on(tmp_path: Path) -> None:
    run = finished_run(tmp_path, questions=12)
    drop_questions(run)
    assert RunReader(run).refresh()
    assert len(read_results(run).question_ids) == 12
    with pytest.raises(AbsentError, match="an earlier version recorded its answers alone"):
        read_questions(run)
    append_spool(spool_of(run.database), {"events": [[0.0, "info", "kind", "words"]]})
    with pytest.raises(AbsentError, match="an earlier version recorded its answers alone"):
        read_questions(run)
    recorder = Recorder(run.database)
    validate(recorder, 5, (0, 1))
    recorder.close()
    assert predicted(run) == {"a": 0, "b": 1}


def test_a_view_in_place_of_the_table_is_damage(tmp_path: Path) -> None:
    run = finished_run(tmp_path, questions=12)
    drop_questions(run, "CREATE VIEW questions AS SELECT 1 AS id")
    for read in (RunReader(run).refresh, lambda: read_questions(run)):
        with pytest.raises(DamagedError, match="`questions` is missing or no table"):
            read()


def test_what_is_not_recorded_yet_is_absent(run: RunDir) -> None:
    begin(run).close()
    for split, words in (("test", "when it has been trained"), ("validation", "with its first validation")):
        for read in (read_questions, read_answers):
            with pytest.raises(AbsentError, match=words):
                read(run, split)


# The command ------------------------------------------------------------------------------------


@pytest.fixture(name="shown", scope="module")
def _shown(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return finished_run(tmp_path_factory.mktemp("shown"), correct=[True, False, True] * 10)


def show(run: RunDir, *options: str) -> Result:
    command = typer.Typer()
    command.command()(show_command.show)
    arguments = [run.id, "--questions", *options, "--runs", str(run.path.parent)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, arguments)


def test_wrong_answers_come_first_and_a_table_is_cut(shown: RunDir) -> None:
    table = show(shown).stdout
    assert "20 of 30 questions, 10 of which were answered wrong." in table
    assert table.index("test/00001") < table.index("test/00028") < table.index("test/00000")
    assert "A Option 0  B Option 1" in table
    assert show(shown, "--limit", "1").stdout.count("What is asked in") == 1


def test_a_query_that_finds_no_question_is_told_without_an_empty_table(shown: RunDir) -> None:
    done = show(shown, "nowhere")
    assert done.stdout == f"{shown.id}: none of 30 questions of the test matches: nowhere\n"
    assert json.loads(show(shown, "nowhere", "--format", "json").stdout) == []


def test_programs_get_every_question_in_raw_values(shown: RunDir) -> None:
    rows = json.loads(show(shown, "--format", "json").stdout)
    assert len(rows) == 30
    assert (rows[0]["task"], rows[0]["answer"], rows[0]["predicted"]) == (SIX_TASKS[1][0], 1, 2)
    assert rows[0]["neighbours"] == [SIX_TASKS[i][0] for i in (2, 3, 4, 5, 0)]
    lines = list(csv.DictReader(show(shown, "--format", "csv").stdout.splitlines()))
    assert [line["id"] for line in lines] == [row["id"] for row in rows]


def test_a_split_without_answers_and_options_without_questions_are_said(shown: RunDir) -> None:
    with pytest.raises(AbsentError, match="has no answers to the validation questions"):
        show_command.show(shown.id, questions=True, split=Split.VALIDATION, runs=shown.path.parent)
    with pytest.raises(ConfigError, match="query, --split and --limit are for --questions"):
        show_command.show(shown.id, split=Split.TEST, runs=shown.path.parent)


def test_a_query_finds_questions_and_what_another_arm_answers_otherwise(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", seed=1, correct=[True] * 12)
    finished_run(tmp_path, "baseline", seed=2, correct=[False] * 12)
    finished_run(tmp_path, "full", seed=2, correct=[True] * 12)
    run = finished_run(tmp_path, "full", seed=1, correct=[i % 2 == 0 for i in range(12)])
    assert list(arms_beside(run)) == ["baseline", "s2"], "the seed of the run itself stands for another recipe"

    def found(*words: str) -> list[str]:
        return sorted(row["id"][-2:] for row in json.loads(show(run, *words, "--format", "json").stdout))

    odd = ["01", "03", "05", "07", "09", "11"]
    assert found("wrong") == found("flip:baseline") == found("flip:s2") == odd
    assert found("wrong", f"task={SIX_TASKS[1][0]}") == ["01", "07"]
    assert found(f'pair:"{SIX_TASKS[2][0]}","{SIX_TASKS[1][0]}"') == ["01", "07"], "its own task and the nearest other"
    assert found("(gold:B", "predicted:C)", "p>.5", '"in test/00009"') == ["09"]
    assert "1 of 6 found of 12 questions, 6 of which" in show(run, "wrong", "--limit", "1").stdout
    with pytest.raises(QueryError, match="There is no key 'flop'"):
        show_command.show(run.id, ["flop:x"], questions=True, runs=tmp_path)
    with pytest.raises(AbsentError, match="There is: baseline and s2"):
        show_command.show(run.id, ["flip:nobody"], questions=True, runs=tmp_path)


def test_answers_to_other_questions_are_not_put_beside(tmp_path: Path) -> None:
    other = finished_run(tmp_path, "baseline", correct=[True] * 12)
    run = finished_run(tmp_path, "full", correct=[True] * 12)
    with duckdb.connect(str(other.database)) as connection:
        connection.execute("UPDATE predictions SET gold = 3 - gold").fetchall()
    with pytest.raises(AbsentError, match="was asked other test questions"):
        Answered(run, "test").answers_of("baseline")
