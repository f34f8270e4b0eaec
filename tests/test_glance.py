"""What a list of runs shows of a database."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from accl.store.glance import BINS, GlanceReader
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "total", "binned", "broken"),
    [
        ([8, 6, 4, 2], 2 * BINS - 1, [8, 5, 2], None),
        ([8, INF, NAN, 2], 2 * BINS - 1, [8, NAN, 2], None),
        ([8, 6, NAN, INF], 2 * BINS - 1, [8, 6, NAN], 3),
        ([NAN], 2 * BINS - 1, [NAN], 1),
        ([3] * (BINS - 1), 0, [NAN] + [3] * (BINS - 1), None),
        ([], 10, [], None),
    ],
)
def test_losses_are_binned_over_the_steps_planned_and_what_is_broken_is_said(
    tmp_path: Path, losses: Sequence[float], total: int, binned: Sequence[float], broken: int | None
) -> None:
    run = RunDir(tmp_path)
    recorder = Recorder(run.database)
    recorder.meta({"floor/test/majority": "0.25", "floor/test/length": "0.3", "floor/validation/length": "0.9"})
    for step, loss in enumerate(losses, start=1):
        recorder.metrics(step, 0.0, 0.0, {"train/loss": float(loss)})
    recorder.close()
    glance = GlanceReader(run).read(total)
    assert glance.losses == pytest.approx(binned, nan_ok=True)
    assert (glance.broken_since, glance.floor) == (broken, 0.3)
