"""`accl show RUN --questions`: what was asked, and what the run answered."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.output import Format, emit
from accl.cli.table import Column, Row, Table, number
from accl.data.questions import LETTERS
from accl.store.deadline import within
from accl.store.rundir import RunDir
from accl.store.summary import reading

if TYPE_CHECKING:
    from accl.store.questions import Question

DEADLINE_S = 15.0
SHOWN = 20  # questions in the formats for people


class Split(StrEnum):
    """Values of ``--split``."""

    TEST = "test"
    VALIDATION = "validation"


QuestionsOption = Annotated[bool, typer.Option("--questions", help="List questions and answers, wrong ones first.")]
SplitOption = Annotated[
    Split | None, typer.Option("--split", help="Questions of the test, or of the best validation.", show_default="test")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most N questions.", show_default=f"{SHOWN}; all in json and csv"),
]

COLUMNS = [
    Column("id"),
    Column("task", wrap=True),
    Column("text", "question", wrap=True),
    Column("options", wrap=True, cell=lambda row: _options(row)),
    Column("answer", "right", cell=lambda row: _letter(row["answer"])),
    Column("predicted", "answered", cell=lambda row: _letter(row["predicted"])),
    Column("p", "", "", "right", cell=lambda row: number(".2f")(row["probabilities"][row["predicted"]])),
]


def show_questions(run: RunDir, split: Split, limit: int | None, format: Format) -> None:
    """Print the questions of a split and the answers of a run, wrong ones first.

    Raises:
        AbsentError, BusyError, DamagedError, RunError: they cannot be read.
    """
    with reading(run.database):
        questions, names = within(DEADLINE_S, lambda: _read(run, split))
    wrong_first = sorted(questions, key=lambda question: question.right)
    if limit is None and format not in (Format.JSON, Format.CSV):
        limit = SHOWN
    rows = [_row(question, names) for question in wrong_first[:limit]]
    wrong = sum(not question.right for question in questions)
    notes = [f"{len(rows):,} of {len(questions):,} questions, {wrong:,} of which were answered wrong."]
    emit(Table(f"{run.id}: {split}", COLUMNS, rows, name="questions"), format, notes=notes)


def _read(run: RunDir, split: Split) -> tuple[list[Question], list[str]]:
    from accl.store.merge import merge_spool
    from accl.store.questions import read_questions
    from accl.store.reader import TASKS, query, read_tasks

    merge_spool(run)
    questions = read_questions(run, split)
    [tasks] = query(run.database, (TASKS, ()))
    return questions, [task.name for task in read_tasks(tasks)]


def _row(question: Question, names: Sequence[str]) -> dict[str, Any]:
    return {
        "id": question.id,
        "task": names[question.task],
        "text": question.text,
        "options": question.options,
        "answer": question.answer,
        "predicted": question.predicted,
        "probabilities": question.probabilities,
        "neighbours": [names[task] for task in question.neighbours],
    }


def _options(row: Row) -> str:
    return "  ".join(f"{_letter(index)} {option}" for index, option in enumerate(row["options"]))


def _letter(index: int) -> str:
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)
