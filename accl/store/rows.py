"""Rows of the tables of ``run.duckdb``, by what they record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from accl.store.schema import is_row
from accl.store.spool import Rows, Values


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

    def confusion(self, step: int, kind: str, matrix: Sequence[float], counts: Sequence[int]) -> None:
        """Record a K x K confusion matrix and the pairs behind each cell, both row by row."""
        self.put("confusion", [(step, kind, list(matrix), list(counts))])

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
        rows = [plain_row(row) for row in rows]
        if not all(is_row(table, row) for row in rows):
            raise ValueError(f"rows that do not fit the table {table}")
        self.rows[table] += rows


def plain_row(row: Values) -> Values:
    """Replace what is no text in strings and lists of strings, such as bytes of a file name."""
    return [[_plain_text(one) for one in value] if isinstance(value, list) else _plain_text(value) for value in row]


def _plain_text(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()
    return value
