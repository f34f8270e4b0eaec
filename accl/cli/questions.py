"""`accl show RUN --questions`: what was asked, and what the run answered."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.options import SPLIT_HELP, Split
from accl.cli.output import Format, emit, say
from accl.cli.table import Column, Row, Table, number
from accl.data.questions import letter
from accl.store.deadline import within
from accl.store.query import parse
from accl.store.rundir import RunDir
from accl.store.summary import reading
from accl.store.vocabulary import QUESTIONS

if TYPE_CHECKING:
    from accl.store.questions import Question

READ_S = 15.0
SHOWN = 20  # questions of a run or an arm in the formats for people


class By(StrEnum):
    """Values of ``--by``: what a comparison is broken down by."""

    CATEGORY = "category"
    SUBCATEGORY = "subcategory"
    TASK = "task"
    QUESTION = "question"


QuestionsOption = Annotated[bool, typer.Option("--questions", help="List questions and answers, wrong ones first.")]
QuestionSplitOption = Annotated[Split | None, typer.Option("--split", help=SPLIT_HELP, show_default="test")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most N questions.", show_default=f"{SHOWN}; all in json and csv"),
]

COLUMNS = [
    Column("id"),
    Column("task", wrap=True),
    Column("text", "question", wrap=True),
    Column("options", wrap=True, cell=lambda row: _options(row)),
    Column("answer", "right", cell=lambda row: letter(row["answer"])),
    Column("predicted", "answered", cell=lambda row: letter(row["predicted"])),
    Column("p", "", "", "right", cell=lambda row: number(".2f")(row["probabilities"][row["predicted"]])),
]


def show_questions(run: RunDir, split: Split, text: str, limit: int | None, format: Format) -> None:
    """Print the questions of a split that a query finds and the answers of a run, the most confident mistakes first.

    Raises:
        QueryError: the query is none.
        AbsentError, BusyError, DamagedError, RunError: they cannot be read.
    """
    from accl.store.answered import Answered
    from accl.store.merge import merge_spool

    wanted = parse(text, QUESTIONS)
    with reading(run.database):
        within(READ_S, lambda: merge_spool(run))
    answered = Answered(run, split)
    found = sorted(answered.find(wanted), key=lambda question: question.by_mistake)
    if limit is None and format not in (Format.JSON, Format.CSV):
        limit = SHOWN
    names = [task.name for task in answered.tasks]
    rows = [_row(question, names) for question in found[:limit]]
    wrong = sum(not question.right for question in found)
    if text and not found and format is Format.TABLE:
        say(f"{run.id}: none of {len(answered.questions):,} questions of the {split} matches: {text}")
        return
    of = f"{len(found):,} found of " if text else ""
    notes = [f"{len(rows):,} of {of}{len(answered.questions):,} questions, {wrong:,} of which were answered wrong."]
    emit(Table(f"{run.id}: {split}", COLUMNS, rows, name="questions"), format, notes=notes)


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
    return "  ".join(f"{letter(index)} {option}" for index, option in enumerate(row["options"]))
