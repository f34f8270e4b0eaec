"""Measurements of a run as Arrow tables that people work with, made from the tables of its database."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow
import pyarrow.compute

from accl.store.measurements import place_tests
from accl.store.reader import group_evaluations
from accl.store.schema import TESTED_STEP
from accl.store.tables import RUN_TYPES, RunLabel, RunTables

METRICS = ("metrics",)
EVALS = ("evals",)
PREDICTIONS = ("predictions", "tasks")


def metric_rows(read: RunTables, names: Sequence[str] = ()) -> pyarrow.Table:
    """Return logged values: step, epoch, seconds, name, value. ``names`` chooses metrics; none chooses all.

    ``read`` has the tables of `METRICS`.
    """
    rows = read.tables["metrics"].drop_columns("seq")
    return rows.filter(pyarrow.compute.is_in(rows["name"], pyarrow.array(names, pyarrow.string()))) if names else rows


def eval_rows(read: RunTables) -> pyarrow.Table:
    """Return evaluations: step, split, n, and every metric that was measured; null where one was not.

    The newest of the test has the step of the weights that it tested. ``read`` has the tables of `EVALS`.
    """
    recorded = read.tables["evals"]
    rows = list(zip(*(column.to_pylist() for column in recorded.itercolumns()), strict=True))
    tested = read.meta.get(TESTED_STEP, "")
    evaluations = place_tests(group_evaluations(rows), int(tested) if tested.isdecimal() and len(tested) < 12 else None)
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.values)
    columns = {
        "step": pyarrow.array([evaluation.step for evaluation in evaluations], pyarrow.int64()),
        "split": pyarrow.array([evaluation.split for evaluation in evaluations], pyarrow.string()),
        "n": pyarrow.array([evaluation.n for evaluation in evaluations], pyarrow.int64()),
    }
    return pyarrow.table(
        columns
        | {
            name: pyarrow.array([evaluation.values.get(name) for evaluation in evaluations], pyarrow.float64())
            for name in names
            if name not in columns
        }
    )


def prediction_rows(read: RunTables, split: str) -> pyarrow.Table:
    """Return the answers to the questions of a split, by task and id.

    Columns are question_id, task (index), task_name, subcategory, category, gold and predicted (option indices),
    correct, confidence (probability of the predicted option) and probabilities. ``read`` has the tables of
    `PREDICTIONS`.
    """
    rows = read.tables["predictions"]
    rows = rows.filter(pyarrow.compute.equal(rows["split"], split))
    rows = rows.sort_by([("task", "ascending"), ("question_id", "ascending")]).combine_chunks()
    tasks = read.tables["tasks"].sort_by("task")
    probabilities = rows["probabilities"]
    ends = np.cumsum(pyarrow.compute.list_value_length(probabilities).to_numpy(), dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    flat = pyarrow.compute.list_flatten(probabilities).to_numpy()
    of_task = {
        title: tasks[column].take(rows["task"]) if len(tasks) else pyarrow.nulls(len(rows), pyarrow.string())
        for title, column in (("task_name", "name"), ("subcategory", "subcategory"), ("category", "category"))
    }
    return pyarrow.table(
        {
            "question_id": rows["question_id"],
            "task": rows["task"],
            **of_task,
            "gold": rows["gold"],
            "predicted": rows["predicted"],
            "correct": pyarrow.compute.equal(rows["gold"], rows["predicted"]),
            "confidence": flat[starts + rows["predicted"].to_numpy()],
            "probabilities": probabilities,
        }
    )


def beside(tables: Sequence[tuple[RunLabel, pyarrow.Table]]) -> pyarrow.Table:
    """Join the tables of several runs one below the other, each row after the label of its run.

    A column that one of them lacks is null in its rows.
    """
    labelled = []
    for label, table in tables:
        columns = {
            column: pyarrow.array([value] * len(table), sql_type)
            for (column, sql_type), value in zip(RUN_TYPES.items(), label, strict=True)
        }
        columns |= dict(zip(table.column_names, table.columns, strict=True))
        labelled.append(pyarrow.table(columns))
    return pyarrow.concat_tables(labelled, promote_options="default")
