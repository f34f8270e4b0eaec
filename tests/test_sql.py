"""`accl sql` answers one query over the tables of runs, changes nothing and opens no file."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from conftest import run_accl
from factory import finished_run, running_run
from hostile import EVIL, INVISIBLE, hostile_run
from test_api import held
from test_schema import SCHEMA_1
from typer.testing import CliRunner

from accl.cli.sql import sql
from accl.errors import AbsentError, AcclError, BusyError, DamagedError, QueryError, RunError
from accl.store import sql as store_sql
from accl.store.labels import edit_labels
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.schema import TABLES
from accl.store.spool import append_spool, spool_of
from accl.store.sql import SqlError, run_sql


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return finished_run(tmp_path, "full", seed=3, steps=40, questions=60, overrides=["optim.lr=3e-4"])


def call(root: Path, *arguments: str, columns: int = 80) -> Any:
    """Run `accl sql` in this process; raises what it raises."""
    app = typer.Typer()
    app.command("sql")(sql)
    done = CliRunner().invoke(app, [*arguments, "--runs", str(root)], env={"COLUMNS": str(columns)})
    if done.exception is not None:
        raise done.exception
    return done


def rows(root: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(root, *arguments, "--format", "json").stdout)
    return found


def test_tables_of_several_runs_are_one_with_whose_each_row_is(tmp_path: Path, run: RunDir) -> None:
    other = finished_run(tmp_path, "baseline", seed=5, steps=20, questions=30)
    found = rows(tmp_path, "select run, recipe, seed, count(*) as n from predictions group by all order by n")
    assert [tuple(row.values()) for row in found] == [(other.id, "baseline", 5, 30), (run.id, "full", 3, 60)]
    united = " union all ".join(
        f"select '{table}' as t, run, count(*) as n from {table} group by run" for table in TABLES
    )
    counts = {(row["t"], row["run"]): row["n"] for row in rows(tmp_path, united)}
    for each in (run, other):
        expected = query(each.database, *((f"SELECT count(*) FROM run.{table}", ()) for table in TABLES))
        assert [counts.get((table, each.id), 0) for table in TABLES] == [count for [[count]] in expected]


def test_runs_are_a_table_with_metrics_and_configuration(tmp_path: Path, run: RunDir) -> None:
    edit_labels(run, add=["paper"], note="the good one")
    finished_run(tmp_path, "baseline", steps=20)
    [found] = rows(
        tmp_path, 'select state, tags, note, "optim.lr", "validation/accuracy" v, created from runs where seed = 3'
    )
    accuracy = found.pop("v")
    assert 0 < accuracy < 1
    assert found.pop("created").startswith("2026-11-22T")
    assert found == {"state": "finished", "tags": ["paper"], "note": "the good one", "optim.lr": 3e-4}


def test_runs_are_chosen_by_name_or_query(tmp_path: Path, run: RunDir) -> None:
    other = finished_run(tmp_path, "baseline", seed=5, steps=20)
    for words, expected in (
        ([], {run.id, other.id}),
        ([run.id], {run.id}),
        (["full", "baseline"], {run.id, other.id}),
        (["lr<4e-4"], {run.id}),
        ([str(other.path)], {other.id}),
    ):
        assert {row["run"] for row in rows(tmp_path, "select distinct run from metrics", *words)} == expected
    with pytest.raises(RunError, match="No run of 2"):
        call(tmp_path, "select 1", "seed:9")
    with pytest.raises(RunError, match="No runs in"):
        call(tmp_path / "empty", "select 1")


def test_two_runs_of_one_name_stay_apart(tmp_path: Path, run: RunDir) -> None:
    copy = RunDir(tmp_path / "copies" / run.id)
    copy.path.parent.mkdir()
    copy.path.mkdir()
    for file in (run.config, run.state, run.database):
        (copy.path / file.name).write_bytes(file.read_bytes())
    found = rows(tmp_path, "select distinct run from metrics", str(run.path), str(copy.path))
    assert {row["run"] for row in found} == {run.id, str(copy.path)}


def test_every_format_has_the_rows(tmp_path: Path) -> None:
    running_run(tmp_path, seed=20261122)
    statement = "select seed, step, value, name as \"a,b\" from metrics where name = 'train/loss' order by seq limit 2"
    expected = [list(row.values()) for row in rows(tmp_path, statement)]
    head, *found = csv.reader(io.StringIO(call(tmp_path, statement, "-f", "csv").stdout))
    assert head == ["seed", "step", "value", "a,b"]
    assert found == [[str(value) for value in row] for row in expected]
    assert call(tmp_path, statement, "-f", "md").stdout.splitlines()[0] == "| seed | step | value | a,b |"
    printed = call(tmp_path, statement).stdout
    assert "20261122" in printed
    assert f"{expected[0][2]:.6g}" in printed


def test_values_of_every_type_are_printed(tmp_path: Path, run: RunDir) -> None:
    expected = {
        "1.5": 1.5,
        "'nan'::double": None,
        "null": None,
        "date '2026-11-22'": "2026-11-22",
        "timestamp '2026-11-22 10:00:00'": "2026-11-22T10:00:00",
        "{'x': 1.5}": {"x": 1.5},
        "'ab'::blob": "6162",
        "true": True,
        "sum(3)": 3,
        "[1, 2]": [1, 2],
        "now() > 'epoch'": True,
    }
    columns = ", ".join(f"{value} as c{i}" for i, value in enumerate(expected))
    [found] = rows(tmp_path, f"select {columns}")
    assert list(found.values()) == list(expected.values())
    assert run.id in call(tmp_path, "select run, run, run from runs").stdout
    assert rows(tmp_path, "select 1 as a, 2 as a, 3 as a_2") == [{"a": 1, "a_2": 2, "a_2_2": 3}]


def test_people_see_the_first_rows_and_how_many_more_there_are(tmp_path: Path, run: RunDir) -> None:
    printed = call(tmp_path, "from range(1234)", run.id).stdout
    assert printed.splitlines()[101].strip() == "99"
    assert "1,134 more rows; print all of them with --format csv." in printed
    assert len(rows(tmp_path, "from range(1234)")) == 1234
    assert "more row" not in call(tmp_path, "from range(100)").stdout


def test_the_tables_are_listed_without_any_run(tmp_path: Path) -> None:
    for words in (".tables", "SHOW TABLES;"):
        found = {row["table"]: row["columns"] for row in rows(tmp_path / "none", words)}
        assert list(found) == ["runs", *TABLES]
        assert found["tasks"] == ["run", "recipe", "seed", "task", "name", "subcategory", "category"]
    assert "optim.lr" in call(tmp_path, ".tables").stdout


def test_a_pivot_and_an_explanation_are_queries(tmp_path: Path, run: RunDir) -> None:
    pivot = "pivot (select run, name, value from evals where split = 'test') on name using first(value)"
    [found] = rows(tmp_path, pivot)
    assert {"run", "accuracy", "loss"} <= set(found)
    assert found["run"] == run.id
    assert "EMPTY" in call(tmp_path, "explain select * from tasks where false").stdout.upper()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("selct 1", 'syntax error at or near "selct"'),
        ("select los from metrics", '"los" not found'),
        ("select * from metric", "no table metric. Did you mean: metrics?"),
        ("select * from nothing", "no table nothing."),
        ("from query_table('met' || 'rics')", "no table metrics."),
        ("select 'x'::int", "convert string 'x'"),
        ("", "The query is empty."),
        ("select 1; select 2", "Only one query"),
        ("delete from runs", "Only one query"),
        ("create table mine as select 1", "Only one query"),
        ("create table mine as pivot runs on state using count(*)", "Only one query"),
        ("set threads = 9", "Only one query"),
        ("load httpfs", "Only one query"),
    ],
)
def test_what_is_no_query_is_refused_in_one_line(tmp_path: Path, run: RunDir, statement: str, words: str) -> None:
    with pytest.raises(AcclError, match=re.escape(words)) as refused:
        call(tmp_path, statement, run.id)
    assert refused.value.exit_code == QueryError.exit_code
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "statement",
    [
        "from read_csv('{file}')",
        "from read_text('{file}')",
        "from '{file}'",
        "from glob('{file}')",
        "from sniff_csv('{file}')",
        "attach '{file}' as other",
        "copy runs to '{file}.copy'",
        "copy (pivot runs on state using count(*)) to '{file}.copy'",
        "from call_me",
    ],
)
def test_no_file_and_no_variable_is_within_reach(tmp_path: Path, run: RunDir, statement: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nhidden,1\n")
    call_me = [{"a": "hidden"}]
    with pytest.raises(AcclError) as refused:
        call(tmp_path, statement.format(file=secret), run.id)
    assert "hidden" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == []
    assert call_me


def test_a_query_that_takes_too_long_is_ended(tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sql, "LIMIT_S", 0.2)
    with pytest.raises(BusyError, match=r"no answer within 0\.2 s"):
        call(tmp_path, "select sum(a.range * b.range) from range(100000000) a, range(100000000) b", run.id)


def test_live_spooled_and_old_databases_are_read(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    append_spool(spool_of(run.database), {"metrics": [[81, 1.0, 2.0, "train/loss", 0.25]]})
    old = RunDir(tmp_path / "old")
    old.path.mkdir()
    old.config.write_text(run.config_text())
    with duckdb.connect(str(old.database)) as connection:
        connection.execute(SCHEMA_1).fetchall()
    assert rows(tmp_path, "select max(step) as step from metrics", run.id) == [{"step": 81}]
    found = rows(tmp_path, "select split, value from evals where name = 'accuracy' order by seq", "old")
    assert [row["value"] for row in found] == [0.3, 0.5, 0.6]
    assert rows(tmp_path, "select count(*) as n from questions", "old") == [{"n": 0}]


def test_a_named_run_that_cannot_be_read_is_an_error_and_one_that_was_found_is_left_out(
    tmp_path: Path, run: RunDir
) -> None:
    broken, empty = (finished_run(tmp_path, "baseline", seed=seed, steps=20) for seed in (1, 2))
    broken.database.write_bytes(b"no database")
    empty.database.unlink()
    statement = "select distinct run from metrics"
    with held(run), pytest.raises(BusyError, match="is held by process"):
        call(tmp_path, statement, run.id)
    with pytest.raises(DamagedError):
        call(tmp_path, statement, broken.id)
    with pytest.raises(AbsentError):
        call(tmp_path, statement, empty.id)
    done = call(tmp_path, statement, "state:finished", "-f", "csv")
    assert done.stdout.splitlines() == ["run", run.id]
    assert done.stderr.count("note: left out:") == 1
    assert str(broken.database) in done.stderr
    assert call(tmp_path, "select run from runs order by 1", "-f", "csv").stdout.count("\n") == 4


def test_a_view_in_the_place_of_a_table_never_runs(tmp_path: Path, run: RunDir) -> None:
    with duckdb.connect(str(run.database)) as connection:
        connection.execute("ALTER TABLE events RENAME TO hidden").fetchall()
        connection.execute("CREATE VIEW events AS SELECT * FROM read_text('/etc/hostname')").fetchall()
    with pytest.raises(DamagedError, match="events"):
        call(tmp_path, "from events", run.id)


@pytest.mark.parametrize("format", ["table", "csv", "md", "tex"])
def test_hostile_text_is_printed_and_never_acted_on(tmp_path: Path, format: str) -> None:
    import unicodedata

    run = hostile_run(tmp_path)
    for statement in ("from events", "from questions", "from runs", "select key, value from meta", f"select '{EVIL}'"):
        printed = call(tmp_path, statement.replace("\x00", ""), run.id, "-f", format).stdout
        assert not {c for c in printed.replace("\n", "") if unicodedata.category(c) in INVISIBLE}


def test_the_command_is_one_of_accl(tmp_path: Path, run: RunDir) -> None:
    done = run_accl("sql", "select seed from runs", run.id, "--runs", str(tmp_path), "-f", "csv")
    assert (done.returncode, done.stdout) == (0, "seed\n3\n"), done.stderr
    done = run_accl("sql", "select 1", "--runs", str(tmp_path / "none"))
    assert done.returncode == RunError.exit_code


@pytest.mark.parametrize("query", ["select * from range(10000000000)", "select repeat('x', 100000) from range(100000)"])
def test_an_answer_that_no_memory_holds_is_refused_as_it_comes(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sql, "MOST_BYTES", 1_000_000)
    with pytest.raises(SqlError, match="more than 1 MB") as error:
        run_sql(query, [])
    assert "LIMIT" in error.value.hint


def test_an_error_among_the_rows_is_one_of_the_query() -> None:
    with pytest.raises(SqlError, match="boom"):
        run_sql("select case when range = 50000 then error('boom') end from range(60000)", [])


def test_rows_that_never_end_are_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sql, "LIMIT_S", 0.2)
    monkeypatch.setattr(store_sql, "MOST_BYTES", 10**18)
    with pytest.raises(BusyError, match=r"no answer within 0\.2 s"):
        run_sql("select null from range(100000000000) where range % 100 = 0", [])


def test_no_progress_is_drawn_among_the_rows() -> None:
    (row,) = run_sql("select current_setting('enable_progress_bar') as drawn", []).rows.to_pylist()
    assert row == {"drawn": False}


@pytest.mark.parametrize("value", ["date '99999-01-01'", "timestamp '99999-01-01 00:00:00'"])
def test_a_time_that_cannot_be_printed_is_said_to_be_one(tmp_path: Path, run: RunDir, value: str) -> None:
    with pytest.raises(SqlError, match="The column late") as error:
        call(tmp_path, f"select {value} as late", run.id)
    assert "VARCHAR" in error.value.hint
    assert "99" in call(tmp_path, f"select ({value})::varchar as late", run.id).stdout
