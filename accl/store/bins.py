"""The metrics of a run binned by DuckDB, so that one of any length is read in a fraction of a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np

from accl.store.curve import Curve, raw_curve
from accl.store.database import Session
from accl.store.schema import BOUND

MAX_BINS = 2048
# Rows that are fetched as they are: binning them would take DuckDB longer.
FEW_ROWS = 20_000

# By name: the newest value, and what shows whether every row is one that a run records. NaN is above all numbers.
_NEW_ROWS = """
SELECT name, max(seq), arg_max_null(value, seq), min(step), max(step),
  min(least(epoch, seconds)), max(greatest(epoch, seconds)),
  count(*) = count(step) AND count(*) = count(epoch) AND count(*) = count(seconds)
FROM run.metrics WHERE seq > ? GROUP BY name
"""
_BINS = """
SELECT name, first, last, epoch, seconds, n, n - finite AS broken,
  coalesce(quantiles[1], 'nan') AS low, coalesce(quantiles[2], 'nan') AS median, coalesce(quantiles[3], 'nan') AS high,
  coalesce(lowest, 'nan') AS lowest, coalesce(highest, 'nan') AS highest
FROM (
  SELECT name, min(step)::BIGINT AS first, max(step)::BIGINT AS last, max(epoch) AS epoch, max(seconds) AS seconds,
    count(*) AS n, count(known) AS finite, quantile_cont(known, [0.1, 0.5, 0.9]) AS quantiles,
    min(known) AS lowest, max(known) AS highest
  FROM (SELECT name, step, epoch, seconds, CASE WHEN isfinite(value) THEN value END AS known FROM run.metrics
    WHERE {condition})
  GROUP BY name, step >> ?
) ORDER BY name, first
"""


@dataclass(frozen=True)
class Metrics:
    """The table ``metrics`` of a run up to the row ``cursor``, in bins of ``2**shift`` steps.

    Attributes:
        curves: by metric.
        newest: by metric, the value recorded last; NaN where that is NULL.
    """

    cursor: int = -1
    shift: int = 0
    curves: dict[str, Curve] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)

    def grown(self, session: Session, batch_size: float) -> Metrics:
        """Return the metrics with the rows that are new: only bins that these belong to are read again.

        Raises:
            ValueError: there are rows that no run records.
        """
        if not self.shift and (found := self._followed(read_few(session, batch_size, self.cursor))):
            return found
        rows = session(_NEW_ROWS, self.cursor)
        if not rows:
            return self
        for name, _, _, *bounds, whole in rows:
            if name is None or not whole:
                raise ValueError("a NULL in metrics")
            if not all(-BOUND < bound < BOUND for bound in bounds):
                raise ValueError("metrics out of range")
        end = max(row[4] for row in rows)
        shift = max(self.shift, shift_of(end))
        start = min(row[3] for row in rows) >> shift << shift
        # Wider bins are other bins, so all of them are read.
        condition = ("step >= ?", start) if shift == self.shift and self.curves else ("TRUE",)
        curves = read_curves(session, shift, batch_size, *condition)
        if len(condition) > 1:
            curves = self.curves | {
                name: joined(self.curves[name], curve, start) if name in self.curves else curve
                for name, curve in curves.items()
            }
        newest = self.newest | {row[0]: float("nan") if row[2] is None else row[2] for row in rows}
        return Metrics(max(row[1] for row in rows), shift, curves, newest)

    def _followed(self, new: Metrics | None) -> Metrics | None:
        """Return the metrics with new ones, bins of one value as well; None if some are not of later steps."""
        if new is None or any(curve.first[0] <= self._end(name) for name, curve in new.curves.items()):
            return None
        curves = {
            name: joined(self.curves[name], curve, int(curve.first[0])) if name in self.curves else curve
            for name, curve in new.curves.items()
        }
        return Metrics(new.cursor, 0, self.curves | curves, self.newest | new.newest)

    def _end(self, name: str) -> float:
        """Return the last step of a metric."""
        return float(self.curves[name].last[-1]) if name in self.curves else -math.inf


def read_few(session: Session, batch_size: float, after: int) -> Metrics | None:
    """Read metrics with ``seq > after`` in one query, as bins of one value; None where that does not do, for whatever
    reason: there are none, too many, or some that no run records.
    """
    columns = session.columns(
        f"SELECT seq, name, step, epoch, seconds, value FROM run.metrics WHERE seq > ? LIMIT {FEW_ROWS + 1}", after
    )
    value = np.ma.filled(columns.pop("value").astype(np.float64), np.nan)
    if not 0 < len(value) <= FEW_ROWS or any(map(np.ma.is_masked, columns.values())):
        return None
    names = sorted(set(columns["name"].tolist()))
    codes = {name: code for code, name in enumerate(names)}
    code = np.array([codes[name] for name in columns["name"].tolist()], np.int64)
    order = np.lexsort((columns["step"], code))
    code, value, seq = code[order], value[order], columns["seq"][order]
    step, epoch, seconds = (columns[name][order] for name in ("step", "epoch", "seconds"))
    repeated = (code[1:] == code[:-1]) & (step[1:] == step[:-1])
    in_range = all((np.abs(column) < BOUND).all() for column in (step, epoch, seconds))
    if not in_range or repeated.any() or shift_of(int(step.max())):
        return None
    step = step.astype(np.int64)
    curves, newest = {}, {}
    edges = np.searchsorted(code, np.arange(len(names) + 1))
    for name, low, high in zip(names, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(low, high)
        curves[name] = raw_curve(step[part], epoch[part], step[part] * batch_size, seconds[part], value[part])
        newest[name] = float(value[low + int(seq[part].argmax())])
    return Metrics(int(seq.max()), 0, curves, newest)


def shift_of(steps: int) -> int:
    """Return how far to shift a step to the right so that so many steps are at most `MAX_BINS` bins."""
    return max(0, (steps // MAX_BINS).bit_length())


def read_curves(
    session: Session, shift: int, batch_size: float, condition: str = "TRUE", *parameters: Any
) -> dict[str, Curve]:
    """Read the curves of the metrics where a condition holds, in bins of ``2**shift`` steps."""
    columns = session.columns(_BINS.format(condition=condition), *parameters, shift)
    names = columns.pop("name")
    columns["questions"] = columns["last"] * batch_size
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return {
        names[low]: Curve(**{key: values[low:high] for key, values in columns.items()})
        for low, high in pairwise(edges)
        if low < high
    }


def joined(curve: Curve, tail: Curve, start: int) -> Curve:
    """Return a curve whose bins from a step on are those of another."""
    kept = int(np.searchsorted(curve.first, start))
    return Curve(
        *(np.concatenate([getattr(curve, column.name)[:kept], getattr(tail, column.name)]) for column in fields(Curve))
    )


def named(names: Sequence[str]) -> str:
    """Return the condition that a metric is one of these names, which are its parameters."""
    return f"name IN ({', '.join('?' * len(names)) or 'NULL'})"
