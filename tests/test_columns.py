"""Reading a run as columns: bins that grow, and only what is needed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from factory import finished_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accl.store import bins
from accl.store.columns import ALL, RunReader
from accl.store.curve import Curve
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

NEVER_S = 3600.0
VALUES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf]))
ROWS = st.lists(st.tuples(st.integers(0, 90), st.sampled_from("ab"), VALUES), min_size=1, max_size=40)


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    return run


def same(found: dict[str, Curve], expected: dict[str, Curve]) -> None:
    assert found.keys() == expected.keys()
    for name, curve in found.items():
        for column, values in vars(curve).items():
            np.testing.assert_array_equal(values, getattr(expected[name], column), f"{name} {column}")


@given(appends=st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bins_that_grew_equal_bins_made_at_once(
    tmp_path_factory: pytest.TempPathFactory, appends: list[list[tuple[int, str, float]]]
) -> None:
    run = RunDir(tmp_path_factory.mktemp("run"))
    growing, recorder = RunReader(run), Recorder(run.database, interval=NEVER_S)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(bins, "MAX_BINS", 16)  # so that bins widen twice
        for rows in appends:
            for step, name, value in rows:
                recorder.metrics(step, step / 10, step * 2.0, {name: value})
            recorder.flush()
            growing.refresh({"curves"})
            same(growing.last.curves, RunReader(run).read({"curves"}).curves)
    recorder.close()
    every = [(step, name, value) for rows in appends for step, name, value in rows]
    for name, curve in growing.last.curves.items():
        values = np.array([value for _, other, value in every if other == name])
        assert len(curve) <= 16
        assert (curve.n.sum(), curve.broken.sum()) == (len(values), (~np.isfinite(values)).sum())


def test_few_rows_read_at_once_are_the_bins_of_the_same_rows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(run.database)
    for step in (3, 1, 2, 7):
        recorder.metrics(step, step / 4, step * 2.0, {"x": float(step), "y": math.nan if step == 7 else math.inf})
    recorder.close()
    few = RunReader(run).read({"curves"})
    monkeypatch.setattr(bins, "FEW_ROWS", 0)
    binned = RunReader(run).read({"curves"})
    same(few.curves, binned.curves)
    assert repr(sorted(few.newest.items())) == repr(sorted(binned.newest.items()))


def test_a_bin_has_the_quantiles_and_extremes_of_its_finite_values(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bins, "MAX_BINS", 2)
    with_nan = [float(i) for i in range(10)] + [math.nan, math.inf]
    recorder = Recorder(run.database)
    for step, value in enumerate(with_nan):
        recorder.metrics(step, step / 4, step * 2.0, {"x": value, "y": math.nan})
    recorder.close()
    last = RunReader(run).read({"curves"})
    first, second = last.curves["x"].first.tolist(), last.curves["x"].last.tolist()
    assert (first, second) == ([0, 8], [7, 11])
    np.testing.assert_allclose(last.curves["x"].low, [0.7, 8.1])
    assert last.curves["x"].median.tolist() == [3.5, 8.5]
    assert last.curves["x"].highest.tolist() == [7, 9]
    assert last.curves["x"].broken.tolist() == [0, 2]
    assert last.curves["x"].seconds.tolist() == [14, 22]
    assert np.isnan(last.curves["y"].median).all()
    assert last.newest["x"] == math.inf


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    reader = RunReader(finished_run(tmp_path))
    assert reader.read({"curriculum"}).curriculum is not None
    assert not any((reader.last.curves, reader.last.confusion, reader.last.events))
    version = reader.last.version
    assert reader.refresh(ALL)
    assert reader.last.version > version
    assert reader.last.curves
    assert reader.last.confusion
    assert reader.last.events
    assert not reader.refresh({"curves"})


def test_questions_are_steps_times_the_batch_size(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    curve = RunReader(run).read({"curves"}).curves["train/loss"]
    assert curve.questions.tolist() == (curve.last * run.load_config().train.batch_size).tolist()


def test_older_matrices_values_and_finer_bins_are_read_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bins, "MAX_BINS", 64)
    reader = RunReader(finished_run(tmp_path))
    last = reader.read()
    assert len(last.curves["train/loss"]) < 64
    assert last.confusion["similarity"].step == last.confusion_steps["similarity"][-1] == 200
    assert last.confusion_steps["similarity"] == (50, 100, 150, 200)
    older = reader.confusion_at("similarity", 100)
    assert older is not None
    assert (older.step, older.counts[0, 0]) == (100, 100)
    assert reader.confusion_at("similarity", 101) is None
    zoomed = reader.zoomed(["train/loss"], 20, 40)
    assert zoomed.keys() == {"train/loss"}
    assert zoomed["train/loss"].last.tolist() == list(range(20, 41))
    assert reader.values_at(40)["train/loss"] == zoomed["train/loss"].newest
    assert "validation/ece" in reader.values_at(50)


def test_the_test_belongs_to_the_step_of_the_weights_that_it_tested(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    recorder = Recorder(run.database)
    recorder.metrics(200, 3.0, 10.0, {"test/accuracy": 0.5})
    recorder.meta({"tested_step": "150"})
    recorder.close()
    last = RunReader(run).read()
    assert last.tested_step == 150
    assert last.curves["test/accuracy"].last.tolist() == [150]
    assert last.curves["test/accuracy"].seconds.tolist() == [7.5]
    assert (last.evaluations[-1].split, last.evaluations[-1].step) == ("test", 150)
    assert {split: step for split, (step, _, _) in last.task_accuracy.items()} == {"validation": 150, "test": 150}
    assert (
        last.tested("accuracy") == last.curves["validation/accuracy"].median[last.curves["validation/accuracy"].at(150)]
    )
