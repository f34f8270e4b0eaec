"""Databases of schema 1 stay readable and can be resumed; a new metric of evaluations needs no new schema."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from conftest import Accl
from factory import finished_run

from accl.analysis.results import read_results
from accl.errors import RunError
from accl.store import schema
from accl.store.columns import RunReader
from accl.store.reader import Evaluation, query
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

SCHEMA_1 = """
CREATE TABLE metrics (seq BIGINT, step INTEGER, epoch DOUBLE, seconds DOUBLE, name VARCHAR, value DOUBLE);
CREATE TABLE curriculum (seq BIGINT, step INTEGER, policy VARCHAR, weights FLOAT[], drawn INTEGER[]);
CREATE TABLE confusion (seq BIGINT, step INTEGER, kind VARCHAR, matrix FLOAT[], counts INTEGER[]);
CREATE TABLE evals (seq BIGINT, step INTEGER, split VARCHAR, n INTEGER, loss DOUBLE, accuracy DOUBLE,
  macro_accuracy DOUBLE, ece DOUBLE, brier DOUBLE);
CREATE TABLE task_evals (step INTEGER, split VARCHAR, task INTEGER, n INTEGER, correct INTEGER);
CREATE TABLE predictions (split VARCHAR, question_id VARCHAR, task INTEGER, gold INTEGER, predicted INTEGER,
  probabilities FLOAT[]);
CREATE TABLE system (seq BIGINT, seconds DOUBLE, gpu_util DOUBLE, gpu_memory DOUBLE, power DOUBLE, cpu DOUBLE,
  rss DOUBLE);
CREATE TABLE events (seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR);
CREATE TABLE tasks (task INTEGER, name VARCHAR, subcategory VARCHAR, category VARCHAR);
CREATE TABLE meta (key VARCHAR, value VARCHAR);
INSERT INTO meta VALUES ('schema_version', '1'), ('generation', '0');
INSERT INTO metrics VALUES (0, 10, 0.5, 3.0, 'train/loss', 1.1), (1, 20, 1.0, 6.0, 'train/loss', 0.9),
  (2, 20, 1.0, 6.0, 'validation/loss', 0.8);
INSERT INTO evals VALUES (0, 10, 'validation', 40, 1.0, 0.3, 0.25, 0.1, NULL), (1, 20, 'validation', 40, 0.8, 0.5,
  0.45, NULL, 'NaN'), (2, 20, 'test', 60, 0.7, 0.6, NULL, 0.2, 0.4);
"""
OLD = [
    Evaluation(10, "validation", 40, {"loss": 1.0, "accuracy": 0.3, "macro_accuracy": 0.25, "ece": 0.1}),
    Evaluation(20, "validation", 40, {"loss": 0.8, "accuracy": 0.5, "macro_accuracy": 0.45, "brier": math.nan}),
    Evaluation(20, "test", 60, {"loss": 0.7, "accuracy": 0.6, "ece": 0.2, "brier": 0.4}),
]


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> RunDir:
    """A run whose database has schema 1."""
    run = RunDir(tmp_path / "old")
    run.path.mkdir()
    with duckdb.connect(str(run.database)) as connection:
        connection.execute(SCHEMA_1).fetchall()
    return run


def version(run: RunDir) -> str:
    [[row]] = query(run.database, ("SELECT value FROM run.meta WHERE key = 'schema_version'", ()))
    return str(row[0])


def followed(run: RunDir) -> RunReader:
    reader = RunReader(run)
    assert reader.refresh()
    return reader


def same(found: Sequence[Evaluation], expected: list[Evaluation]) -> bool:
    return repr([*found]) == repr(expected)  # NaN equals itself here


def test_schema_1_is_read_as_it_was(old: RunDir) -> None:
    reader = followed(old)
    assert same(reader.last.evaluations, OLD)
    assert reader.last.curves["validation/accuracy"].median.tolist() == [0.3, 0.5]
    assert reader.last.curves["test/ece"].last.tolist() == [20]
    assert version(old) == "1"


def test_a_run_of_schema_1_goes_on_in_schema_2(old: RunDir) -> None:
    before = followed(old)
    recorder = Recorder(old.database)
    assert version(old) == "2"
    assert same(followed(old).last.evaluations, OLD)
    recorder.evaluation(30, "validation", {"n": 40, "accuracy": 0.55, "f1": 0.5})
    recorder.close()
    new = Evaluation(30, "validation", 40, {"accuracy": 0.55, "f1": 0.5})
    # Whoever read the old rows before gets the new ones, once.
    assert before.refresh()
    assert same(before.last.evaluations, [*OLD, new])
    assert same(followed(old).last.evaluations, [*OLD, new])
    [rows] = query(old.database, ("SELECT seq FROM run.evals", ()))
    assert rows == sorted(set(rows))
    Recorder(old.database).close()
    assert same(followed(old).last.evaluations, [*OLD, new])


def test_rows_of_schema_1_left_in_a_spool_are_merged(old: RunDir) -> None:
    spool = old.path / "run.spool.jsonl"
    spool.write_text(json.dumps(["evals", [3, 30, "validation", 40, 0.7, 0.55, None, 0.1, 0.4]]) + "\n")
    recorder = Recorder(old.database)
    recorder.evaluation(40, "validation", {"n": 40, "accuracy": 0.6})
    recorder.close()
    assert not spool.exists()
    spooled = Evaluation(30, "validation", 40, {"loss": 0.7, "accuracy": 0.55, "ece": 0.1, "brier": 0.4})
    assert same(followed(old).last.evaluations, [*OLD, spooled, Evaluation(40, "validation", 40, {"accuracy": 0.6})])


def test_a_kill_during_the_migration_leaves_schema_1_whole(old: RunDir) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from accl.store import database, writer;"
        "append = database.Session.append;"
        "database.Session.append = lambda *a: (append(*a), os.kill(os.getpid(), signal.SIGKILL));"
        "writer.Recorder(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(old.database)], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert version(old) == "1"
    assert same(followed(old).last.evaluations, OLD)
    Recorder(old.database).close()
    assert version(old) == "2"
    assert same(followed(old).last.evaluations, OLD)


def test_a_schema_from_the_future_is_neither_read_nor_written(old: RunDir) -> None:
    with duckdb.connect(str(old.database)) as connection:
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'").fetchall()
        connection.execute("DROP TABLE evals").fetchall()
    for use in (RunReader(old).refresh, lambda: Recorder(old.database)):
        with pytest.raises(RunError, match="has schema 3, this accl reads up to 2") as caught:
            use()
        assert "\n" not in str(caught.value)
    with duckdb.connect(str(old.database), read_only=True) as connection:
        rows = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert ("evals",) not in rows


def test_a_comparison_reads_both_schemas(tmp_path: Path, old: RunDir) -> None:
    run = finished_run(tmp_path, questions=60, measured=(0.7, 0.2, 0.4))
    new = read_results(run).evaluation
    assert new is not None
    assert (new.n, new.values["loss"], new.values["ece"], new.values["brier"]) == (60, 0.7, 0.2, 0.4)
    with duckdb.connect(str(run.database)) as connection:
        connection.execute("DROP TABLE evals").fetchall()
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'").fetchall()
        connection.execute(f"ATTACH '{old.database}' AS other (READ_ONLY)").fetchall()
        connection.execute("CREATE TABLE evals AS FROM other.evals").fetchall()
    assert read_results(run).evaluation == OLD[2]


def test_metrics_of_evaluations_are_curves_and_none_comes_twice(old: RunDir) -> None:
    recorder = Recorder(old.database)
    recorder.evaluation(25, "validation", {"n": 40, "loss": 0.7, "f1": math.nan, "skipped": None})
    recorder.metrics(25, 1.25, 7.5, {"validation/loss": 0.7})
    recorder.close()
    last = followed(old).last
    assert last.curves["validation/loss"].last.tolist() == [20, 25]  # as recorded in metrics
    f1 = last.curves["validation/f1"]
    assert (f1.last.tolist(), f1.epoch.tolist(), f1.seconds.tolist()) == ([25], [1.25], [7.5])
    assert f1.broken.tolist() == [1]
    assert math.isnan(last.newest["validation/f1"])
    assert not {"validation/n", "validation/skipped"} & set(last.curves)


def test_a_new_metric_is_shown_without_being_named_anywhere(tmp_path: Path, accl: Accl) -> None:
    run = finished_run(tmp_path, steps=60)
    recorder = Recorder(run.database)
    recorder.evaluation(60, "test", {"n": 120, "f1": 0.4321})
    recorder.close()
    shown = accl("show", run.id, "--runs", str(tmp_path))
    assert "test/f1" in shown.stdout
    assert "0.4321" in shown.stdout
    metrics = json.loads(accl("show", run.id, "--runs", str(tmp_path), "--format", "json").stdout)["metrics"]
    assert metrics["test/f1"] == 0.4321
    assert {"test/macro_accuracy", "test/ece", "test/brier", "validation/accuracy", "validation/loss"} <= set(metrics)


def test_the_sql_of_the_readme_runs(tmp_path: Path) -> None:
    text = (Path(schema.__file__).parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    run = finished_run(tmp_path, steps=60, questions=60)
    statements = [statement for statement in block.split(";") if statement.strip()]
    with duckdb.connect(str(run.database), read_only=True) as connection:
        results = [connection.execute(statement).fetchall() for statement in statements]
        columns = [row[0] for row in connection.execute(statements[1]).description or ()]
    assert len(results) == 6
    assert all(results)
    assert {"n", "loss", "accuracy", "macro_accuracy", "ece", "brier"} <= set(columns)


def test_the_readme_names_every_table_and_column() -> None:
    text = (Path(schema.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for table, columns in schema.COLUMNS.items():
        assert [column for column in columns if f"`{column}`" not in rows[table]] == []


NAN = math.nan
QUESTION = ["id", 0, "text", ["yes", "no"], 1, [2]]
CONFUSION = [1, "similarity", [0.5, NAN, math.inf, 3], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("table", "row", "fits"),
    [
        ("metrics", [1, 0.1, 2, "loss", NAN], True),
        ("metrics", [1, np.float64(0.1), 2, "loss", None], True),
        ("metrics", [True, 0.1, 2.0, "loss", 1.0], False),
        ("metrics", [1, 0.1, 2.0, "loss", True], False),
        ("metrics", [1, 0.1, 2.0, "loss", "1.0"], False),
        ("metrics", [1, 0.1, 2.0, "loss", 2**31], False),
        ("metrics", [2**31, 0.1, 2.0, "loss", 1.0], False),
        ("metrics", [1.0, 0.1, 2.0, "loss", 1.0], False),
        ("metrics", [None, 0.1, 2.0, "loss", 1.0], False),
        ("metrics", [1, 0.1, 2.0, "half \ud83d", 1.0], False),
        ("metrics", [1, 0.1, 2.0, b"loss", 1.0], False),
        ("metrics", [1, 0.1, 2.0, "loss"], False),
        ("metrics", [1, 0.1, 2.0, "loss", 1.0, 1.0], False),
        ("questions", QUESTION, True),
        ("questions", [*QUESTION[:3], [], 1, []], True),
        ("questions", [*QUESTION[:3], ["yes", 1], 1, [2]], False),
        ("questions", [*QUESTION[:3], "yes", 1, [2]], False),
        ("questions", [*QUESTION[:3], ["yes", "\udcff"], 1, [2]], False),
        ("questions", [*QUESTION[:5], [2.0]], False),
        ("questions", [*QUESTION[:5], [2**31]], False),
        ("confusion", CONFUSION, True),
        ("confusion", [1, "similarity", [schema.MAX_FLOAT, -schema.MAX_FLOAT], [-(2**31)]], True),
        ("confusion", [1, "similarity", [1e39, 1.0], [1]], False),
        ("confusion", [1, "similarity", [NAN, -1e39], [1]], False),
        ("confusion", [1, "similarity", [None, 1.0], [1]], False),
        ("confusion", [1, "similarity", np.ones(2, np.float32), np.ones(2, np.int32)], True),
        ("confusion", [1, "similarity", np.ones(2), np.ones(2, np.int32)], False),
        ("confusion", [1, "similarity", np.ones(2, np.float32), np.ones(2, np.int64)], False),
        ("confusion", [1, "similarity", np.ones((1, 2), np.float32), np.ones(2, np.int32)], False),
    ],
)
def test_a_row_fits_its_table_alone_and_among_others(table: str, row: list[Any], fits: bool) -> None:
    good = {"metrics": [2, 0.2, 3.0, "loss", 0.5], "questions": QUESTION, "confusion": CONFUSION}[table]
    assert schema.are_rows(table, [row]) == fits
    assert schema.are_rows(table, [good, row, good]) == fits
