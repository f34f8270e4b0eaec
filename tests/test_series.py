"""`accl show --series` prints exact values, and `accl show --format csv` one table of raw values."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import duckdb
import pytest
from conftest import run_accl
from factory import finished_run

from accl.errors import AbsentError, ConfigError
from accl.store.rundir import RunDir
from accl.store.series import read_series
from accl.store.writer import Recorder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return finished_run(tmp_path_factory.mktemp("series"), "full")


def table(printed: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(printed)))


def test_a_series_in_csv_holds_every_value_as_it_was_recorded(run: RunDir) -> None:
    done = run_accl("show", str(run.path), "--series", "train/loss", "--series", "validation/accuracy", "-f", "csv")
    head, *rows = table(done.stdout)
    assert head == ["series", "step", "epoch", "seconds", "value"]
    with duckdb.connect(str(run.database), read_only=True) as connection:
        names = "('train/loss', 'validation/accuracy')"
        sql = f"SELECT name, step, epoch, seconds, value FROM metrics WHERE name IN {names} ORDER BY name, step"
        recorded = connection.execute(sql).fetchall()
    assert len(recorded) == 200 + 4
    assert [(name, *map(float, values)) for name, *values in rows] == recorded


def test_the_values_of_a_long_run_are_no_bins(tmp_path: Path) -> None:
    run = finished_run(tmp_path, curves=False)
    recorder = Recorder(run.database)
    for step in range(1, 5001):
        recorder.metrics(step, step / 1000, float(step), {"train/loss": 1 / step})
    assert recorder.close() == 0
    assert [row["value"] for row in read_series(run, ["train/loss"])] == [1 / step for step in range(1, 5001)]


def test_a_test_stands_at_the_step_of_the_weights_tested(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    with duckdb.connect(str(run.database)) as connection:
        connection.execute("UPDATE meta SET value = '150' WHERE key = 'tested_step'")
    done = run_accl("show", str(run.path), "--series", "test/accuracy", "--format", "json")
    (row,) = json.loads(done.stdout)
    assert (row["series"], row["step"]) == ("test/accuracy", 150)
    assert 0 < row["value"] < 1


def test_a_series_that_was_not_recorded_names_those_like_it(run: RunDir) -> None:
    with pytest.raises(AbsentError, match=r"no series 'train/los'.*Did you mean train/loss"):
        read_series(run, ["train/loss", "train/los"])


def test_a_series_and_questions_are_two_different_things(run: RunDir) -> None:
    done = run_accl("show", str(run.path), "--series", "train/loss", "--questions")
    assert done.returncode == ConfigError.exit_code
    assert f"accl show {run.id} --series train/loss" in done.stderr


def test_the_csv_of_a_run_is_one_table_of_the_raw_values_that_json_holds(run: RunDir) -> None:
    plain, raw = (run_accl("show", str(run.path), "--format", form).stdout for form in ("json", "csv"))
    data, (head, *rows) = json.loads(plain), table(raw)
    assert head == ["key", "value"]
    assert all(len(row) == 2 for row in rows)
    values = dict(rows)
    assert len(values) == len(rows)
    assert float(values["metrics.train/loss"]) == data["metrics"]["train/loss"]
    assert float(values["totals.training_seconds"]) == data["totals"]["training_seconds"]
    assert values["config.optim.lr"] == str(data["config"]["optim"]["lr"])
    assert values["events.0.message"] == data["events"][0]["message"]
    assert float(values["categories.0.accuracy"]) == data["categories"][0]["accuracy"]
    assert {key.partition(".")[0] for key in values} == set(data)
