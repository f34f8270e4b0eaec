"""Runs from Python: what they measured comes as frames, and what cannot be read is an error of the family."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pytest
from factory import SIX_TASKS, finished_run, running_run
from test_schema import SCHEMA_1

import accl
from accl.errors import AbsentError, AcclError, BusyError, ConfigError, DamagedError, QueryError, RunError
from accl.store.columns import RunReader
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.spool import append_spool, spool_of
from accl.store.state import State
from accl.store.writer import Recorder

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return finished_run(tmp_path, "full", seed=3, steps=120, questions=60, overrides=["optim.lr=3e-4"])


@contextmanager
def held(run: RunDir) -> Iterator[None]:
    """Hold a run's database in another process."""
    command = [sys.executable, "-c", HOLD, str(run.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.communicate("\n")


def test_the_python_of_the_readme_runs(tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.path.parent == tmp_path
    readme = Path(accl.__file__).parent / "store" / "README.md"
    [code] = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setenv("ACCL_RUNS", str(tmp_path))
    names: dict[str, object] = {}
    exec(code, names)
    assert repr(names["runs"]) == f"<accl.Runs ['{run.id}']>"


def test_importing_accl_imports_nothing_that_takes_time() -> None:
    code = "import sys, accl; print(*sys.modules); accl.runs; print('numpy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_first, later = done.stdout.splitlines()
    assert not {"numpy", "duckdb", "pandas", "pyarrow", "torch", "yaml", "accl.api"} & set(at_first.split())
    assert later == "True False"


def test_a_name_that_accl_does_not_have_is_an_attribute_error() -> None:
    assert {"load", "runs", "Run", "__version__"} <= set(dir(accl))
    with pytest.raises(AttributeError, match="nothing"):
        accl.nothing  # noqa: B018


def test_facts_of_a_run_are_attributes(tmp_path: Path, run: RunDir) -> None:
    edit_labels(run, name="best", add=["paper"])
    write_experiment(run, "lr")
    found = accl.load("best", tmp_path)
    assert (found.id, found.path, repr(found)) == (run.id, run.path, f"<accl.Run {run.id}>")
    assert found.state == "finished"
    assert (found.status.step, found.status.total_steps) == (120, 120)
    assert (found.setup.recipe, found.setup.profile, found.setup.seed) == ("full", "demo", 3)
    assert (found.labels.tags, found.experiment) == (("paper",), "lr")
    assert (found.config.optim.lr, found.config.train.seed) == (3e-4, 3)


def test_metrics_are_the_rows_of_the_database(tmp_path: Path, run: RunDir) -> None:
    [expected] = query(run.database, ("SELECT step, epoch, seconds, name, value FROM run.metrics ORDER BY seq", ()))
    frame = accl.load("last", tmp_path).metrics()
    assert [str(name) for name in frame.columns] == ["step", "epoch", "seconds", "name", "value"]
    assert list(frame.itertuples(index=False, name=None)) == expected
    assert len(expected) > 40
    loss = accl.load(run.path).metrics("train/loss")
    assert list(loss["value"]) == [row[4] for row in expected if row[3] == "train/loss"]
    with pytest.raises(AbsentError, match="no metric named train/los"):
        accl.load(run.path).metrics("train/los")


def test_evaluations_have_a_column_for_each_metric_and_the_test_its_own_step(tmp_path: Path, run: RunDir) -> None:
    recorder = Recorder(run.database)
    recorder.meta({"tested_step": "20"})
    recorder.close()
    frame = accl.load("last", tmp_path).evals()
    expected = RunReader(run).read().evaluations
    assert list(zip(frame["step"], frame["split"], frame["n"], strict=True)) == [
        (each.step, each.split, each.n) for each in expected
    ]
    assert list(frame["accuracy"]) == [each.value("accuracy") for each in expected]
    assert frame[frame["split"] == "test"]["step"].tolist() == [20]


def test_predictions_say_what_was_answered_and_how_sure_it_was(tmp_path: Path, run: RunDir) -> None:
    frame = accl.load("last", tmp_path).predictions()
    [rows] = query(
        run.database,
        (
            "SELECT question_id, task, gold, predicted, probabilities FROM run.predictions ORDER BY task, question_id",
            (),
        ),
    )
    assert len(rows) == 60
    assert frame["question_id"].tolist() == [row[0] for row in rows]
    assert frame["correct"].tolist() == [row[2] == row[3] for row in rows]
    assert frame["confidence"].tolist() == [row[4][row[3]] for row in rows]
    assert [list(each) for each in frame["probabilities"]] == [row[4] for row in rows]
    assert frame["task_name"].tolist() == [SIX_TASKS[row[1]][0] for row in rows]
    assert frame["category"].tolist() == [SIX_TASKS[row[1]][2] for row in rows]
    with pytest.raises(AbsentError, match="no answers to validation questions"):
        accl.load("last", tmp_path).predictions("validation")


def test_a_confusion_matrix_has_the_names_of_the_tasks(tmp_path: Path, run: RunDir) -> None:
    names = [name for name, _, _ in SIX_TASKS]
    reader = RunReader(run)
    measured = reader.read()
    newest = accl.load("last", tmp_path).confusion()
    assert [*newest.index] == [*newest.columns] == names
    assert np.array_equal(newest.to_numpy(), measured.confusion["similarity"].matrix, equal_nan=True)
    first = measured.confusion_steps["similarity"][0]
    at_first = reader.confusion_at("similarity", first)
    assert at_first is not None
    assert np.array_equal(accl.load(run.path).confusion(step=first).to_numpy(), at_first.matrix, equal_nan=True)
    with pytest.raises(AbsentError, match=r"of the kind nothing.*similarity"):
        accl.load(run.path).confusion("nothing")
    with pytest.raises(AbsentError, match="matrix of step 7"):
        accl.load(run.path).confusion(step=7)


def test_a_query_finds_runs_the_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [finished_run(tmp_path, "full", seed=seed, steps=20, started=1e9 + seed, curves=False) for seed in range(3)]
    finished_run(tmp_path, "baseline", steps=20, started=5e8)
    found = accl.runs("recipe:full", tmp_path)
    assert [run.id for run in found] == [run.id for run in reversed(made)]
    assert (len(found), found[-1].setup.seed, repr(found[:1])) == (3, 0, f"<accl.Runs ['{made[2].id}']>")
    monkeypatch.setenv("ACCL_RUNS", str(tmp_path))
    assert len(accl.runs()) == 4
    assert len(accl.runs("recipe:none")) == 0
    with pytest.raises(QueryError):
        accl.runs("recipe:full AND (")
    with pytest.raises(RunError, match="No run named 'none'"):
        accl.load("none")


def test_the_frame_of_runs_has_a_row_for_each_and_a_column_for_every_key(tmp_path: Path, run: RunDir) -> None:
    other = finished_run(tmp_path, "baseline", seed=2**63 - 1, steps=20)
    broken = finished_run(tmp_path, "contrastive", steps=20)
    edit_labels(other, add=["a", "b"])
    broken.config.write_bytes(b"\xff")
    frame = accl.runs("", tmp_path).frame().set_index("run")
    assert set(frame.index) == {run.id, other.id, broken.id}
    row = frame.loc[run.id]
    assert (row["state"], row["seed"], row["step"], row["optim.lr"]) == ("finished", 3, 120, 3e-4)
    assert (row["data.source"], row["eval.test"], row["problem"]) == ("synthetic", True, "")
    assert row["test/accuracy"] == accl.load(run.path).status.latest["test/accuracy"]
    assert row["created"].timestamp() == pytest.approx(run.created)
    assert (frame.loc[other.id]["seed"], list(frame.loc[other.id]["tags"])) == (2**63 - 1, ["a", "b"])
    assert "config.yaml" in frame.loc[broken.id]["problem"]


def test_frames_of_several_runs_say_whose_each_row_is(tmp_path: Path, run: RunDir) -> None:
    other = finished_run(tmp_path, "baseline", seed=5, steps=20, questions=30)
    recorder = Recorder(other.database)
    recorder.evaluation(20, "validation", {"n": 9, "novel": 0.5})
    recorder.close()
    found = accl.runs("", tmp_path)
    metrics, answers = found.metrics("train/loss"), found.predictions()
    assert set(zip(metrics["run"], metrics["recipe"], metrics["seed"], strict=True)) == {
        (run.id, "full", 3),
        (other.id, "baseline", 5),
    }
    assert answers.groupby("run").size().to_dict() == {run.id: 60, other.id: 30}
    evals = found.evals()
    assert evals["novel"].dropna().tolist() == [0.5]
    assert evals.groupby("run").size()[run.id] == len(accl.load(run.path).evals())


def test_no_runs_make_frames_without_rows(tmp_path: Path) -> None:
    found = accl.runs("", tmp_path)
    assert [len(frame) for frame in (found.frame(), found.metrics(), found.evals(), found.predictions())] == [0] * 4
    assert found.metrics()["run"].tolist() == []


def test_a_run_that_trains_is_read_with_what_waits_in_its_spool(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    found = accl.load("last", tmp_path)
    before = found.metrics("train/loss")
    assert found.state is State.RUNNING
    append_spool(spool_of(run.database), {"metrics": [[81, 1.0, 2.0, "train/loss", 0.25]]})
    after = found.metrics("train/loss")
    assert len(after) == len(before) + 1
    assert (after["step"].iloc[-1], after["value"].iloc[-1]) == (81, 0.25)
    with open(spool_of(run.database), "a", encoding="utf-8") as file:
        file.write("no row\n")
    with pytest.warns(UserWarning, match="run.spool.jsonl"):
        assert len(found.metrics("train/loss")) == len(after)


def test_a_database_of_schema_1_is_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "old")
    run.path.mkdir()
    run.config.write_text(finished_run(tmp_path, steps=20).config_text())
    with duckdb.connect(str(run.database)) as connection:
        connection.execute(SCHEMA_1).fetchall()
    found = accl.load(run.path)
    assert found.metrics("train/loss")["value"].tolist() == [1.1, 0.9]
    assert found.evals()["n"].tolist() == [40, 40, 60]
    assert found.evals()["accuracy"].tolist() == [0.3, 0.5, 0.6]


def test_busy_damaged_and_absent_are_three_errors(run: RunDir) -> None:
    found = accl.load(run.path)
    with held(run), pytest.raises(BusyError, match="is held by process"):
        found.metrics()
    with duckdb.connect(str(run.database)) as connection:
        connection.execute("UPDATE metrics SET step = NULL WHERE seq = 3").fetchall()
    with pytest.raises(DamagedError, match="metrics"):
        found.metrics()
    run.database.write_bytes(b"no database")
    with pytest.raises(DamagedError):
        found.predictions()
    with pytest.raises(DamagedError):
        found.confusion()
    run.database.unlink()
    with pytest.raises(AbsentError):
        found.evals()
    run.state.write_text("{")
    with pytest.raises(DamagedError, match=r"state\.json"):
        assert found.state
    run.config.unlink()
    with pytest.raises(AbsentError, match=r"config\.yaml"):
        assert found.config


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE predictions SET predicted = 9 WHERE task = 1",
        "UPDATE predictions SET task = 6 WHERE task = 1",
        "UPDATE predictions SET probabilities = [0.5, NULL, 0.2, 0.3] WHERE task = 1",
        "UPDATE tasks SET task = 7 WHERE task = 1",
        "INSERT INTO predictions FROM predictions LIMIT 1",
    ],
)
def test_rows_that_no_run_records_are_damage(run: RunDir, damage: str) -> None:
    with duckdb.connect(str(run.database)) as connection:
        connection.execute(damage).fetchall()
    with pytest.raises(DamagedError, match="no run records"):
        accl.load(run.path).predictions()


def test_a_broken_run_among_others_is_left_out_with_a_warning(tmp_path: Path, run: RunDir) -> None:
    broken, empty = (finished_run(tmp_path, "baseline", seed=seed, steps=20) for seed in (1, 2))
    broken.database.write_bytes(b"no database")
    empty.database.unlink()
    with pytest.warns(UserWarning, match="not a valid DuckDB|damaged"):
        frame = accl.runs("", tmp_path).metrics()
    assert set(frame["run"]) == {run.id}
    with pytest.raises(DamagedError):
        accl.runs("s1", tmp_path).metrics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(accl.runs("s2", tmp_path).metrics()) == 0


def test_a_library_that_is_missing_is_an_error_with_what_to_install(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(AcclError, match="polars, which is not installed") as caught:
        accl.load(run.path, frame="polars")
    assert caught.value.hint == "pip install 'accl[polars]'"
    with pytest.raises(ConfigError, match="pandas, polars"):
        accl.load(run.path, frame="dask")  # type: ignore[call-overload]


def test_polars_frames_hold_the_same(tmp_path: Path, run: RunDir) -> None:
    pytest.importorskip("polars")
    mine, theirs = accl.load(run.path), accl.load(run.path, frame="polars")
    for name in ("metrics", "evals", "predictions"):
        expected, found = getattr(mine, name)(), getattr(theirs, name)()
        assert found.columns == [str(column) for column in expected.columns]
        for column in found.columns:
            values = [value.tolist() if hasattr(value, "tolist") else value for value in expected[column]]
            assert str(found[column].to_list()) == str(values).replace("nan", "None")
    matrix = theirs.confusion()
    assert matrix["task"].to_list() == [name for name, _, _ in SIX_TASKS]
    assert np.array_equal(matrix.drop("task").to_numpy(), mine.confusion().to_numpy(), equal_nan=True)
    assert accl.runs("", tmp_path, frame="polars").frame()["optim.lr"].to_list() == [3e-4]
