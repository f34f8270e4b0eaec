"""Whether two runs ended equal: every weight to the bit, and every measurement but clocks and speeds."""

from __future__ import annotations

import hashlib
from typing import Any

from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import read_state

# Clocks and speeds are the only thing in which two equal runs may differ.
TIMED = ("train/questions_per_second",)
_QUERIES = {
    "metrics": "SELECT step, epoch, name, value FROM run.metrics WHERE name NOT IN ({}) ORDER BY name, step",
    "curriculum": "SELECT step, policy, weights, drawn FROM run.curriculum ORDER BY step",
    "confusion": "SELECT step, kind, CAST(matrix AS VARCHAR), counts FROM run.confusion ORDER BY kind, step",
    "evals": "SELECT * EXCLUDE seq FROM run.evals ORDER BY split, step, name",
    "task_evals": "SELECT * FROM run.task_evals ORDER BY split, step, task",
    "predictions": "SELECT * FROM run.predictions ORDER BY split, question_id",
    "questions": "SELECT * FROM run.questions ORDER BY id",
    "tasks": "SELECT * FROM run.tasks ORDER BY task",
}


def measurements(run: RunDir) -> dict[str, list[Any]]:
    """Return the rows of each table, without ``seq`` and what clocks say."""
    marks = ",".join("?" * len(TIMED))
    statements = [(sql.format(marks), TIMED if "{}" in sql else ()) for sql in _QUERIES.values()]
    return dict(zip(_QUERIES, query(run.database, *statements), strict=True))


def weights(run: RunDir) -> dict[str, str]:
    """Return the SHA-256 of every tensor file of the last checkpoint."""
    folder = run.checkpoints / read_state(run).checkpoint_last
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))}


def differences(run: RunDir, other: RunDir) -> list[str]:
    """Return the names of tables and of files of weights in which two runs differ."""
    found = []
    for left, right in ((measurements(run), measurements(other)), (weights(run), weights(other))):
        found += [name for name in left | right if left.get(name) != right.get(name) or not left.get(name)]
    return found
