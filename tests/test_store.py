from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pytest

from accl.config import available, dump, load, resolve
from accl.errors import AbsentError, DamagedError, RunError
from accl.store import writer
from accl.store.columns import RunReader
from accl.store.reader import Evaluation, query
from accl.store.rundir import RunDir, create_run, find_run, list_runs, write_atomically
from accl.store.schema import COLUMNS
from accl.store.writer import Recorder


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    run = create_run(tmp_path / "runs", "full", 42)
    run.config.write_text("recipe: full\n")
    return run


def count(run: RunDir, table: str) -> int:
    [[row]] = query(run.database, (f"SELECT count(*) FROM run.{table}", ()))
    return int(row[0])


def hold(path: str, ready: object, release: object) -> None:
    """Keep the file attached until released; runs in another process."""
    connection = duckdb.connect(":memory:")
    connection.execute(f"ATTACH '{path}' AS held").fetchall()
    ready.set()  # type: ignore[attr-defined]
    release.wait()  # type: ignore[attr-defined]


class Holder:
    """Another process that holds the database for writing."""

    def __init__(self, database: Path) -> None:
        context = multiprocessing.get_context("spawn")
        ready, self.release = context.Event(), context.Event()
        self.process = context.Process(target=hold, args=(str(database), ready, self.release))
        self.process.start()
        assert ready.wait(60)

    def release_file(self) -> None:
        self.release.set()
        self.process.join()


def test_readers_get_what_was_recorded_and_only_what_is_new(run: RunDir) -> None:
    recorder = Recorder(run.database)
    reader = RunReader(run)
    recorder.tasks([(0, "a", "s", "c"), (1, "b", "s", "c")])
    recorder.metrics(1, 0.1, 2.0, {"train/loss": 3.0, "train/accuracy": 0.5})
    recorder.curriculum(1, "uniform", [0.5, 0.5], [3, 4])
    recorder.confusion(1, "similarity", [0.0, 0.25, 0.25, float("nan")], [1, 2, 3, 0])
    recorder.evaluation(1, "validation", {"n": 10, "loss": 1.0, "accuracy": 0.3, "brier": 0.7})
    recorder.task_evaluations([(1, "validation", 0, 6, 2), (1, "validation", 1, 4, 1)])
    recorder.system(1.0, (None, None, None, 99.0, 1e9))
    recorder.event(0.5, "info", "kind", "words")
    recorder.meta({"floor/test/longest_option": "0.28"})
    recorder.flush()
    assert reader.refresh()
    assert reader.last.curves["train/loss"].median.tolist() == [3.0]
    assert reader.last.curves["train/loss"].epoch.tolist() == [0.1]
    assert reader.last.curriculum is not None
    assert reader.last.curriculum.drawn_SK.tolist() == [[3, 4]]
    assert reader.last.confusion["similarity"].matrix[0, 1] == 0.25
    assert np.isnan(reader.last.confusion["similarity"].matrix[1, 1])
    assert reader.last.evaluations == (Evaluation(1, "validation", 10, {"loss": 1.0, "accuracy": 0.3, "brier": 0.7}),)
    assert np.isnan(reader.last.evaluations[0].value("ece"))
    assert reader.last.task_accuracy["validation"][2].tolist() == [2, 1]
    assert [values.tolist() for values in reader.last.system["cpu"]] == [[1.0], [99.0]]
    assert [values.tolist() for values in reader.last.system["power"]] == [[], []]
    assert reader.last.events[0].message == "words"
    assert reader.last.meta["floor/test/longest_option"] == "0.28"
    assert not reader.refresh()

    recorder.metrics(2, 0.2, 3.0, {"train/loss": 2.0})
    recorder.close()
    assert reader.refresh()
    assert reader.last.curves["train/loss"].last.tolist() == [1, 2]
    assert reader.last.curves["train/accuracy"].last.tolist() == [1]


def test_the_background_thread_writes_without_being_asked(run: RunDir) -> None:
    ticks = threading.Semaphore(0)
    recorder = Recorder(run.database, on_tick=ticks.release, interval=0.01)
    recorder.metrics(1, 0.0, 0.0, {"x": 1.0})
    while count(run, "metrics") == 0:  # as after a tick that began before the row was there
        assert ticks.acquire(timeout=30)
    assert count(run, "metrics") == 1
    recorder.close()


def test_a_locked_file_delays_rows_and_loses_none(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TRIES", 1)
    recorder = Recorder(run.database, interval=3600)
    holder = Holder(run.database)
    reader = RunReader(run)
    recorder.metrics(1, 0.0, 0.0, {"x": 1.0})
    recorder._round()
    assert not reader.refresh()
    assert reader.stale_seconds > 0
    holder.release_file()
    recorder.metrics(2, 0.0, 0.0, {"x": 2.0})
    recorder.close()
    assert reader.refresh()
    assert reader.stale_seconds == 0
    assert reader.last.curves["x"].median.tolist() == [1.0, 2.0]


def test_a_file_that_stays_locked_sends_rows_to_the_spool_and_they_come_back(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRIES", 1)
    recorder = Recorder(run.database, interval=3600)
    holder = Holder(run.database)
    recorder.metrics(1, 0.0, 0.0, {"x": 1.0})
    recorder.flush()
    spool = run.path / "run.spool.jsonl"
    _, line = spool.read_text().splitlines()
    assert json.loads(line)[:2] == ["metrics", [1, 0.0, 0.0, "x", 1.0]]
    recorder.metrics(2, 0.0, 0.0, {"x": 2.0})
    holder.release_file()
    recorder.close()
    assert not spool.exists()
    [rows] = query(run.database, ("SELECT seq, value FROM run.metrics ORDER BY seq", ()))
    assert rows == [(0, 1.0), (1, 2.0)]


def test_a_kill_between_merging_the_spool_and_deleting_it_doubles_nothing(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRIES", 1)
    recorder = Recorder(run.database, interval=3600)
    holder = Holder(run.database)
    recorder.metrics(1, 0.0, 0.0, {"x": 1.0})
    recorder.task_evaluations([(1, "validation", 0, 4, 3)])
    recorder.flush()
    holder.release_file()
    spool = run.path / "run.spool.jsonl"
    left = spool.read_bytes()
    recorder.close()
    spool.write_bytes(left)  # as a process leaves it that is killed after the commit
    recorder = Recorder(run.database, interval=3600)
    assert not spool.exists()
    recorder.metrics(2, 0.0, 0.0, {"x": 2.0})
    recorder.close()
    metrics, tasks = query(
        run.database, ("SELECT seq, value FROM run.metrics ORDER BY seq", ()), ("SELECT n FROM run.task_evals", ())
    )
    assert metrics == [(0, 1.0), (1, 2.0)]
    assert tasks == [(4,)]


def test_rows_survive_a_kill_of_the_writing_process(run: RunDir) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from accl.store.writer import Recorder;"
        "r = Recorder(Path(sys.argv[1])); r.metrics(1, 0., 0., {'x': 1.0}); r.flush();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.database)])
    assert done.returncode == -signal.SIGKILL
    assert count(run, "metrics") == 1
    # The next life of the run goes on counting where the last one ended.
    recorder = Recorder(run.database)
    recorder.metrics(2, 0.0, 0.0, {"x": 2.0})
    recorder.close()
    [rows] = query(run.database, ("SELECT seq FROM run.metrics ORDER BY seq", ()))
    assert rows == [(0,), (1,)]


def test_rewinding_forgets_later_steps_and_readers_start_over(run: RunDir) -> None:
    recorder = Recorder(run.database)
    for step in range(1, 5):
        recorder.metrics(step, 0.0, 0.0, {"x": float(step)})
    recorder.predictions([("test", "q", 0, 1, 1, [0.5, 0.5])])
    recorder.flush()
    reader = RunReader(run)
    reader.refresh()
    recorder.rewind(2)
    assert reader.refresh()
    assert reader.last.curves["x"].last.tolist() == [1, 2]
    assert count(run, "predictions") == 0
    recorder.metrics(3, 0.0, 0.0, {"x": 30.0})
    recorder.close()
    reader.refresh()
    assert reader.last.curves["x"].median.tolist() == [1.0, 2.0, 30.0]


def test_reading_what_is_not_there_or_damaged_is_told_apart(run: RunDir) -> None:
    with pytest.raises(AbsentError):
        query(run.database, ("SELECT 1", ()))
    assert not RunReader(run).refresh()
    run.database.write_text("not a database, but long enough to be looked at as one")
    with pytest.raises(DamagedError, match="not a valid DuckDB"):
        RunReader(run).refresh()


def test_another_schema_is_refused(run: RunDir) -> None:
    Recorder(run.database).close()
    connection = duckdb.connect(str(run.database))
    connection.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'").fetchall()
    connection.close()
    with pytest.raises(RunError, match="999"):
        RunReader(run).refresh()


def test_every_followed_table_numbers_its_rows(run: RunDir) -> None:
    Recorder(run.database).close()
    [rows] = query(run.database, ("SELECT table_name FROM duckdb_tables() WHERE database_name = 'run'", ()))
    assert {row[0] for row in rows} == set(COLUMNS)


def test_run_ids_are_unique_and_found_by_their_parts(tmp_path: Path) -> None:
    runs = [create_run(tmp_path, "full", 1) for _ in range(3)]
    assert len({run.id for run in runs}) == 3
    assert list_runs(tmp_path) == []
    for run in runs:
        run.config.write_text("recipe: full\n")
    assert {run.id for run in list_runs(tmp_path)} == {run.id for run in runs}
    assert find_run(tmp_path, runs[0].id[-4:]).id == runs[0].id
    assert find_run(tmp_path, "last").id == list_runs(tmp_path)[-1].id
    assert find_run(tmp_path, str(runs[1].path)).path == runs[1].path
    with pytest.raises(RunError, match="3 runs match"):
        find_run(tmp_path, "full")
    with pytest.raises(RunError, match="No run named"):
        find_run(tmp_path, "nothing")


def test_the_whole_id_comes_before_a_part_and_whole_segments_before_any_part(tmp_path: Path) -> None:
    for name in ("one", "one-more", "20261122-full-s1-7f3a", "20261123-full-s12-8e4b", "20261124-full-s12-9d5c"):
        RunDir(tmp_path / name).path.mkdir()
        RunDir(tmp_path / name).config.write_text("recipe: full\n")
    assert find_run(tmp_path, "one").id == "one"
    assert find_run(tmp_path, "more").id == "one-more"
    assert find_run(tmp_path, "full-s1").id == "20261122-full-s1-7f3a"
    assert find_run(tmp_path, "8e").id == "20261123-full-s12-8e4b"
    with pytest.raises(RunError, match="2 runs match"):
        find_run(tmp_path, "full-s12")


@pytest.mark.parametrize("recipe", available("recipes"))
def test_the_setup_read_alone_is_that_of_the_whole_configuration(run: RunDir, recipe: str) -> None:
    for profile in available("profiles"):
        run.config.write_text(dump(resolve(recipe, profile, ["train.seed=7"]).config), encoding="utf-8")
        whole, setup = load(run.config), run.setup()
        assert (setup.recipe, setup.profile, setup.seed) == (whole.recipe, whole.profile, whole.train.seed)


def test_a_setup_is_found_between_comments_and_blank_lines_and_its_names_stay_text(run: RunDir) -> None:
    run.config.write_text(
        "# train: of another\n'data': {path: 'train:'}\nrecipe: 1e3  # mine\nprofile: 'no'\n"
        "train:\n  epochs: 1\n\n# by the way\n  seed: 9\neval:\n  seed: 8\n"
    )
    setup = run.setup()
    assert (setup.recipe, setup.profile, setup.seed) == ("1e3", "no", 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("recipe: full\n", "does not say"),
        ("recipe: full\nprofile: demo\ntrain: 3\n", "does not say"),
        ("recipe: full\nprofile: demo\ntrain:\n  seed: one\n", "does not say"),
        ("", "does not say"),
        ("recipe: {full\n", "not valid YAML"),
    ],
)
def test_a_configuration_without_a_setup_is_one_clear_error(run: RunDir, content: str, words: str) -> None:
    run.config.write_text(content)
    with pytest.raises(DamagedError, match=words):
        run.setup()
    run.config.unlink()
    with pytest.raises(AbsentError, match="is missing"):
        run.setup()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        create_run(tmp_path / "runs", "full", 1)


def test_an_atomic_write_leaves_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "state.json"
    write_atomically(target, "old")

    def fail(_handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
