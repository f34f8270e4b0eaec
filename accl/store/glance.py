"""The few figures from the database of a run that a list of many runs shows: one attach, a few rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from accl.store.columns import signature_of
from accl.store.database import Session
from accl.store.reader import attached
from accl.store.rundir import RunDir
from accl.store.summary import numbers, reading

BINS = 16

_LOSSES = "SELECT step, value FROM run.metrics WHERE name = 'train/loss'"


@dataclass(frozen=True)
class Glance:
    """Figures from a database.

    Attributes:
        losses: mean training loss in `BINS` bins of all steps that are planned, up to those done; NaN in a bin without
            a finite value.
        broken_since: first of the newest steps whose losses are all NaN or infinite; None while the newest is finite.
        floor: accuracy on the test split of the best trivial baseline; NaN if unknown.
    """

    losses: tuple[float, ...] = ()
    broken_since: int | None = None
    floor: float = math.nan


class GlanceReader:
    """Reader of one run's glance, which is read again only after the files have changed."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._last = Glance()
        self._signature: tuple[int, ...] | None = None

    def read(self, total_steps: int) -> Glance:
        """Read the glance; one of a run that is at its start is empty.

        Raises:
            RunError: the database cannot be read, as in `accl.store.reader.attached`.
        """
        signature = signature_of(self.run.database)
        if signature and signature != self._signature:
            with reading(self.run.database), attached(self.run.database) as session:
                self._last = _read(session, total_steps)
            self._signature = signature
        return self._last


def _read(session: Session, total_steps: int) -> Glance:
    floor = max(numbers(session.meta, ("floor/test/",)).values(), default=math.nan)
    columns = session.columns(_LOSSES)
    step, loss = columns["step"].astype(np.int64), np.ma.filled(columns["value"], np.nan)
    if not len(step):
        return Glance(floor=floor)
    finite = np.isfinite(loss)
    index = step * BINS // (max(total_steps, step.max()) + 1)
    with np.errstate(invalid="ignore"):
        means = np.bincount(index, np.where(finite, loss, 0.0)) / np.bincount(index, finite)
    broken = step[step > step[finite].max(initial=-1)]
    return Glance(tuple(means.tolist()), int(broken.min()) if len(broken) else None, floor)
