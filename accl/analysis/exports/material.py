"""Everything that an export writes of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from accl.config import flat
from accl.errors import RunError
from accl.store.frames import eval_rows
from accl.store.rundir import RunDir
from accl.store.schema import TABLES
from accl.store.summary import Summary
from accl.store.tables import RunTables, read_tables
from accl.text import printable

_LONGEST_NAME = 100  # characters of a file or folder


class Scalar(NamedTuple):
    """A value of a metric; ``seconds`` is running time since the first start of the run."""

    step: int
    seconds: float
    name: str
    value: float


@dataclass(frozen=True, eq=False)
class Material:
    """A run and all its tables.

    Attributes:
        folder: name for a folder or a file of its own, different from that of every other run.
    """

    summary: Summary
    read: RunTables
    folder: str

    @property
    def run(self) -> RunDir:
        return self.summary.run

    @property
    def started(self) -> float:
        """Its first start, or else when it was made, in seconds since the epoch; 0 when neither is known."""
        begun = self.summary.state.begun if self.summary.state else 0.0
        return begun or (created if math.isfinite(created := self.summary.age_key[0]) else 0.0)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Values of the configuration by dotted key; empty where it cannot be read."""
        try:
            values = flat(self.run.load_config())
        except RunError:
            return {}
        return {key: printable(value) if isinstance(value, str) else value for key, value in values.items()}

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the K tasks, by index."""
        rows = sorted(self.rows("tasks"), key=lambda row: int(row["task"]))
        return [printable(row["name"]) for row in rows]

    @cached_property
    def scalars(self) -> list[Scalar]:
        """Metrics, and evaluations as ``{split}/{name}`` where no metric has the same, by step.

        Those of the test have the step of the weights that it tested.
        """
        recorded = [
            Scalar(row["step"], row["seconds"], printable(row["name"]), _number(row["value"]))
            for row in self.rows("metrics")
        ]
        names = {scalar.name for scalar in recorded}
        evaluated: list[Scalar] = []
        for row in eval_rows(self.read).to_pylist():
            step, split = row.pop("step"), row.pop("split")
            for key, value in row.items():
                name = printable(f"{split}/{key}")
                if value is not None and key != "n" and (split == "test" or name not in names):
                    evaluated.append(Scalar(step, self.seconds_at(step), name, value))
        tested = {scalar.name for scalar in evaluated if scalar.name.startswith("test/")}
        kept = [scalar for scalar in recorded if scalar.name not in tested]
        return sorted([*kept, *evaluated], key=lambda scalar: scalar.step)

    def seconds_at(self, step: int) -> float:
        """Return the running time at a step, interpolated between those that have a metric; 0 without any."""
        steps, seconds = self._clock
        return float(np.interp(step, steps, seconds)) if len(steps) else 0.0

    @cached_property
    def _clock(self) -> tuple[Any, Any]:
        metrics = self.read.tables["metrics"]
        steps, seconds = metrics["step"].to_numpy(), metrics["seconds"].to_numpy()
        order = np.argsort(steps, kind="stable")
        return steps[order], seconds[order]

    def task_weights(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Yield step, running time and weight of each task of the curriculum, for every update."""
        for row in self.rows("curriculum"):
            names = self.tasks or [str(task) for task in range(len(row["weights"]))]
            yield row["step"], self.seconds_at(row["step"]), dict(zip(names, row["weights"], strict=True))

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """Return the rows of a table."""
        rows: list[Mapping[str, Any]] = self.read.tables[table].to_pylist()
        return rows


def read_material(summary: Summary, folders: Sequence[str]) -> Material:
    """Read all tables of a run; ``folders`` are the names that other runs have taken.

    Raises:
        BusyError, DamagedError, AbsentError, RunError: the database cannot be read.
    """
    read = read_tables(summary.run, TABLES)
    wanted = name = file_name(summary.run.id)
    number = 1
    while name in folders:
        number += 1
        name = f"{wanted}-{number}"
    return Material(summary, read, name)


def file_name(text: str) -> str:
    """Return a text as the name of a file that means nothing to a shell or a path."""
    return re.sub(r"[^\w.-]|^[.-]", "_", text, flags=re.ASCII)[:_LONGEST_NAME] or "_"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
