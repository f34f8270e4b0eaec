"""A run as a row of raw values, and the cells that several commands show of it."""

from __future__ import annotations

import math
from typing import Any

from accl.cli.table import MISSING, Row, fields
from accl.store.state import State
from accl.store.summary import Summary

LATEST = ("questions_per_second", "train/loss", "validation/accuracy", "test/accuracy")


def run_row(summary: Summary) -> dict[str, Any]:
    """Describe a run in one row of raw values, None where they are not known."""
    state, problem = summary.state, summary.problem
    return {
        "id": summary.run.id,
        **fields(summary.labels, "name", "tags", "note"),
        "experiment": summary.experiment,
        **fields(state, "state"),
        "reason": problem.what if problem else state.reason if state else "",
        "problem": problem and {"kind": problem.kind, "message": str(problem)},
        **fields(state, "phase"),
        **fields(summary.setup, "recipe", "profile", "seed"),
        **fields(state, "step", "total_steps", eta_seconds="left_seconds"),
        "progress": state.step / state.total_steps if state and state.total_steps else None,
        "created": created if math.isfinite(created := summary.age_key[0]) else None,
        "started": state and (state.begun or None),
        "ended": state and (state.ended or None),
        **fields(state, "host", "pid"),
        **{name: state and state.latest.get(name) for name in LATEST},
    }


def state_words(row: Row) -> str:
    """Write the state of a run with its icon, or its problem."""
    if row["state"] is None:
        return f"? {row['problem']['kind']}"
    state = State(row["state"])
    busy = row["phase"] if state.active and row["phase"] not in ("", "training") else ""
    return f"{state.icon} {busy or state.value}"


def progress(row: Row) -> str:
    """Write the steps done and planned."""
    return MISSING if row["step"] is None else f"{row['step']:,}/{row['total_steps']:,}"
