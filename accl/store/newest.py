"""The newest values of a few metrics of a run, for tables of many runs."""

from __future__ import annotations

from collections.abc import Sequence

from accl.store.bins import named
from accl.store.reader import attached, read_evals
from accl.store.rundir import RunDir
from accl.store.summary import reading


def read_newest(run: RunDir, names: Sequence[str]) -> dict[str, float]:
    """Return the newest value of each metric that was recorded, of evaluations by ``split/name``.

    Raises:
        RunError: as `accl.store.reader.attached`.
    """
    with reading(run.database), attached(run.database) as session:
        newest = f"SELECT name, arg_max(value, seq) FROM run.metrics WHERE {named(names)} GROUP BY name"
        found = dict(session(newest, *names))
        for _, _, split, name, value in read_evals(session, session.meta["schema_version"]):
            if (key := f"{split}/{name}") in names:
                found[key] = value
    return {name: float(value) for name, value in found.items() if value is not None}
