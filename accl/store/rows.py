"""Rows of the tables of ``run.duckdb``, by what they record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.store.schema import are_rows
from accl.store.spool import Rows, Values

Array = NDArray[np.generic]


class RowWriter(ABC):
    """Takes rows of every table; `put` says where they go."""

    @abstractmethod
    def put(self, table: str, rows: list[Values]) -> None:
        """Take rows of a table, without ``seq``."""

    def metrics(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        """Record metrics of a step; ``seconds`` is running time since the first start of the run."""
        self.put("metrics", [(step, epoch, seconds, name, value) for name, value in values.items()])

    def curriculum(self, step: int, policy: str, weights: Sequence[float], drawn: Sequence[int]) -> None:
        """Record the task distribution in force from ``step`` on, and questions drawn of each task so far."""
        self.put("curriculum", [(step, policy, list(weights), list(drawn))])

    def confusion(self, step: int, kind: str, matrix: Sequence[float] | Array, counts: Sequence[int] | Array) -> None:
        """Record a K x K confusion matrix and the pairs behind each cell, both row by row.

        Arrays, of float32 and int32 and never changed again, save looking at each of their numbers.
        """
        self.put("confusion", [(step, kind, _array_or_list(matrix), _array_or_list(counts))])

    def evaluation(self, step: int, split: str, values: Mapping[str, float | None]) -> None:
        """Record one evaluation: number of questions ``n``, and metrics by name; None where one was not measured."""
        self.put("evals", [(step, split, name, float(value)) for name, value in values.items() if value is not None])

    def task_evaluations(self, rows: Iterable[tuple[int, str, int, int, int]]) -> None:
        """Record rows of (step, split, task, n, correct)."""
        self.put("task_evals", list(rows))

    def predictions(self, rows: Iterable[tuple[str, str, int, int, int, list[float]]]) -> None:
        """Record rows of (split, question id, task, gold, predicted, probabilities) in place of earlier answers."""
        self.put("predictions", list(rows))

    def questions(self, rows: Iterable[tuple[str, int, str, list[str], int, list[int]]]) -> None:
        """Record rows of (id, task, text, options, right option, neighbouring tasks), in place of earlier ones."""
        self.put("questions", list(rows))

    def system(self, seconds: float, values: Sequence[float | None]) -> None:
        """Record GPU %, GPU bytes, watts, CPU %, resident bytes; None for what the machine lacks."""
        self.put("system", [(seconds, *values)])

    def event(self, seconds: float, level: str, kind: str, message: str) -> None:
        """Record an event; ``level`` is ``info``, ``warning`` or ``error``."""
        self.put("events", [(seconds, level, kind, message)])

    def tasks(self, rows: Iterable[tuple[int, str, str, str]]) -> None:
        """Record rows of (task, name, subcategory, category)."""
        self.put("tasks", list(rows))

    def meta(self, values: dict[str, str]) -> None:
        """Record facts about the run as a whole, by key."""
        self.put("meta", list(values.items()))


class RowCollector(RowWriter):
    """Keeps rows in memory, to be written together.

    Attributes:
        rows: by table.
    """

    def __init__(self) -> None:
        self.rows: Rows = defaultdict(list)

    def put(self, table: str, rows: list[Values]) -> None:
        """Keep rows of a table.

        Raises:
            ValueError: they do not fit the table.
        """
        fitting = fitting_rows(table, rows)
        if len(fitting) < len(rows):
            raise ValueError(f"rows that do not fit the table {table}")
        self.rows[table] += fitting


def fitting_rows(table: str, rows: list[Values]) -> list[Values]:
    """Return the rows that fit a table; what is no text in their strings, such as bytes of a file name, is replaced."""
    if are_rows(table, rows):
        return rows
    return [row for row in map(_plain_row, rows) if are_rows(table, [row])]


def _array_or_list(values: Sequence[float] | Array) -> Array | list[float]:
    return values if isinstance(values, np.ndarray) else list(values)


def _plain_row(row: Values) -> Values:
    return [[_plain_text(one) for one in value] if isinstance(value, list) else _plain_text(value) for value in row]


def _plain_text(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()
    return value
