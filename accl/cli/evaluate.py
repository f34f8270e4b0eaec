"""`accl evaluate`: the model of a run on other questions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from accl.cli.model import Checkpoint, CheckpointOption, interval, progress
from accl.cli.options import RUNS, RunArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Column, Row, Table, percent, score
from accl.text import counted


class Split(StrEnum):
    """Values of ``--split``."""

    TEST = "test"
    VALIDATION = "validation"
    DEV = "dev"
    ALL = "all"


DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of questions, as data.path takes it.")]
SplitOption = Annotated[
    Split | None, typer.Option("--split", help="Which of its questions.", show_default="test if there are any, or all")
]
COLUMNS = [
    Column("name", "questions", cell=lambda row: _name(row)),
    Column("n", "", "", "right"),
    Column("accuracy", "", "%", "right", percent),
    Column("low", "95 % interval", justify="right", cell=interval),
    Column("floor", "", "%", "right", percent),
]


def evaluate(
    run: RunArgument,
    data: DataOption,
    split: SplitOption = None,
    checkpoint: CheckpointOption = Checkpoint.BEST,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Answer other labelled questions with the model of a run.

    The folder has one of the layouts that data.path takes, with any tasks. Nothing is written into the run:
    the figures are printed. Questions that the run learnt from are counted, and the accuracy without them
    is shown. The floor is the best accuracy of two rules that do not read the question: the letter that is
    most frequent in training, and the longest option.

    Examples:

      accl evaluate full-s1 --data bigbench

      accl evaluate last --data my-questions --split all --checkpoint last --format csv
    """
    from accl.launch.model import apply_model
    from accl.store.rundir import find_run

    chosen = find_run(runs, run)
    with progress(chosen) as phase:
        asked = {"folder": str(data.expanduser().absolute()), "split": split or "", "checkpoint": str(checkpoint)}
        done = apply_model("evaluate", chosen, phase, **asked)
    rows = [_row(group) for group in done["groups"]]
    about = {"run": chosen.id, "step": done["step"], "source": done["source"], "split": done["split"]}
    printed = {**about, "metrics": done["metrics"], "learnt_questions": done["learnt_questions"], "groups": rows}
    title = f"{chosen.id}, step {done['step']:,}, on {done['source']}: {done['split']}"
    emit(Table(title, COLUMNS, rows, name="groups"), format, data=printed, notes=_notes(done))


def _row(group: Mapping[str, Any]) -> dict[str, Any]:
    from accl.analysis.stats import wilson

    n, correct, floors = group["n"], group["correct"], group["floors"]
    low, high = wilson(correct, n)
    figures = {"n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high}
    rules = {f"floor/{rule}": value for rule, value in floors.items()}
    return {
        **{key: group[key] for key in ("kind", "name", "learnt")},
        **figures,
        "floor": max(floors.values()),
        **rules,
    }


def _name(row: Row) -> str:
    return f"{row['name']} *" if row["learnt"] is False else str(row["name"])


def _notes(done: Mapping[str, Any]) -> list[str]:
    metrics = done["metrics"]
    notes = [
        f"Mean over tasks {percent(metrics['macro_accuracy'])} %, loss {score(metrics['loss'])}, "
        f"ECE {score(metrics['ece'])}, Brier score {score(metrics['brier'])}."
    ]
    tasks = [group for group in done["groups"] if group["kind"] == "task"]
    if other := sum(not group["learnt"] for group in tasks):
        how = ", and answers these without one" if done["sees_task"] else ""
        notes.append(f"* {counted(other, 'task')} of {len(tasks)} that the run did not learn{how}.")
    if done["learnt_questions"] is None:
        notes.append(f"Whether it learnt from some of them is not known: {done['no_data']}")
    elif done["learnt_questions"]:
        notes.append(f"{counted(done['learnt_questions'], 'question')} stood word for word in its training questions.")
    return [*notes, *done["warnings"]]
