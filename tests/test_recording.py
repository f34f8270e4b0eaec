"""No measurement is lost or recorded twice, whatever happens to the database and its disk in the meantime."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import run_accl
from factory import finished_run

from accl.errors import BusyError, DamagedError, RunError
from accl.store import append, spool, writer
from accl.store.append import RunAppender
from accl.store.columns import RunReader
from accl.store.database import database_at
from accl.store.merge import merge_spool, pending_words
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.spool import append_spool, read_spool, spool_of
from accl.store.state import RunState, State, read_state, write_state
from accl.store.writer import Recorder
from accl.training import report
from accl.training.report import Reporter

HOLD = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'r'); print(1, flush=True); input()"
)
NEVER_S = 3600.0


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("recipe: full\n")
    write_state(run, RunState())
    return run


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TRIES", 1)
    monkeypatch.setattr(writer, "END_WAIT_S", 0.2)


@contextmanager
def held(run: RunDir, mode: str = "r") -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the database."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.database), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def steps(run: RunDir, table: str = "metrics") -> list[int]:
    [rows] = query(run.database, (f"SELECT step FROM run.{table} ORDER BY seq", ()))
    return [int(row[0]) for row in rows]


def events(run: RunDir) -> list[str]:
    return [str(row[0]) for row in query(run.database, ("SELECT message FROM run.events ORDER BY seq", ()))[0]]


def put(recorder: Recorder, *at: int) -> None:
    for step in at:
        recorder.metrics(step, 0.0, 0.0, {"x": float(step)})


def seen(run: RunDir) -> tuple[object, ...]:
    reader = RunReader(run)
    reader.refresh()
    tables = "SELECT * EXCLUDE seq FROM run.{} ORDER BY ALL"
    rows = query(run.database, *((tables.format(table), ()) for table in ("metrics", "evals", "events", "curriculum")))
    meta = {key: value for key, value in reader.last.meta.items() if key not in ("writer", "merged_spool")}
    return rows, reader.last.tasks, meta, reader.last.task_accuracy.keys()


# Spool -----------------------------------------------------------------------------------------------


def test_the_same_figures_come_with_rows_in_the_spool_and_after_they_are_merged(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    recorder.tasks([(0, "a", "s", "c"), (1, "b", "s", "c")])
    recorder.meta({"protocol": "old"})
    put(recorder, 1, 2)
    recorder.flush()
    reader = RunReader(run)
    reader.refresh()
    with held(run):
        put(recorder, 3)
        recorder.evaluation(3, "test", {"n": 4, "accuracy": 0.5})
        recorder.task_evaluations([(3, "test", 0, 2, 1), (3, "test", 1, 2, 1)])
        recorder.curriculum(3, "uniform", [0.5, 0.5], [1, 2])
        recorder.predictions([("test", "q", 0, 1, 1, [0.5, 0.5])])
        recorder.meta({"protocol": "new", "more": "1"})
        recorder.event(1.0, "info", "k", "words")
        assert recorder.close() == 10
        assert reader.refresh()
        assert reader.last.curves["x"].last.tolist() == [1, 2, 3]
        assert reader.last.meta["protocol"] == "new"
        spooled = seen(run)
    assert not reader.refresh()
    write_state(run, read_state(run).changed(state=State.FINISHED, pending=10, reason="ends " + pending_words(10, "x")))
    assert merge_spool(run) == 10
    assert not spool_of(run.database).exists()
    assert (read_state(run).pending, read_state(run).reason) == (0, "ends")
    assert seen(run) == spooled
    reader.refresh()
    assert reader.last.curves["x"].last.tolist() == [1, 2, 3]
    assert [event.message for event in reader.last.events] == ["words"]
    assert merge_spool(run) == 0


def test_a_spool_alone_is_read(run: RunDir) -> None:
    append_spool(spool_of(run.database), {"metrics": [[1, 0.0, 0.0, "x", 2.0]], "meta": [["protocol", "p"]]})
    reader = RunReader(run)
    assert reader.refresh()
    assert reader.last.curves["x"].median.tolist() == [2.0]
    assert reader.last.meta["protocol"] == "p"


def test_resuming_a_run_that_has_finished_merges_what_is_pending(tmp_path: Path) -> None:
    run = finished_run(tmp_path, steps=20)
    append_spool(spool_of(run.database), {"metrics": [[21, 0.0, 0.0, "x", 2.0]]})
    done = run_accl("resume", run.id, "--runs", str(tmp_path))
    assert done.returncode == 7
    assert "1 measurements" in done.stderr
    assert "has finished" in done.stderr
    assert not spool_of(run.database).exists()


def test_nobody_merges_while_a_run_is_trained_or_its_database_is_held(tmp_path: Path) -> None:
    run = finished_run(tmp_path, steps=20)
    append_spool(spool_of(run.database), {"metrics": [[21, 0.0, 0.0, "x", 2.0]]})
    with held(run):
        assert merge_spool(run) == 0
    state = read_state(run)
    write_state(run, state.changed(state=State.QUEUED))
    assert merge_spool(run) == 0
    write_state(run, state)
    content = run.database.read_bytes()
    run.database.write_bytes(content[:9000])
    assert merge_spool(run) == 0
    assert run.database.read_bytes() == content[:9000]
    run.database.write_bytes(content)
    assert merge_spool(run) == 1
    assert steps(run)[-1] == 21


def test_a_torn_line_swallows_nothing_and_lines_that_are_not_ours_are_kept_aside(run: RunDir) -> None:
    path = spool_of(run.database)
    row = [1, 0.0, 0.0, "x", 1.0]
    append_spool(path, {"metrics": [row]})
    with open(path, "ab") as file:
        file.write(b'["metrics", [2, 0.0, 0.0, "x"')  # killed while writing
    append_spool(path, {"metrics": [[3, *row[1:]]]})
    line = path.read_text().splitlines()[1]
    wrong: list[object] = [
        line.replace("1.0", "7.0"),  # a figure changed, the checksum did not
        '["metrics", [1, 2, 3]]',
        '["metrics", [0, "1", 0.0, 0.0, "x", 1.0]]',
        '["metrics", [0, 4294967296, 0.0, 0.0, "x", 1.0]]',
        '["metrics", [0, 1, 0.0, 0.0, "\\ud800", 1.0]]',
        '["metrics", [0, true, 0.0, 0.0, "x", 1.0]]',
        '["curriculum", [0, 1, "p", [1e300], [1]]]',
        '["evals", ["a", 1, "test", 1, 1, 1, 1, 1, 1]]',
        '["passwords", ["a"]]',
        "[" * 100_000,
        "null",
        "\x00\x01",
    ]
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(map(str, wrong)) + '\n["metrics", [0, 9, 0.0,')
    assert read_spool(path).damaged == len(wrong) + 1
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 4)
    recorder.close()
    assert steps(run) == [1, 3, 4]
    [kept] = run.path.glob("run.spool.jsonl.damaged-*")
    assert kept.read_text().startswith('{"spool"')
    assert f"has {len(wrong) + 2} damaged lines" in " ".join(events(run))


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_spool_that_is_no_file_is_set_aside(run: RunDir, kind: str) -> None:
    path = spool_of(run.database)
    {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda path: path.symlink_to(run.config)}[kind](path)
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1)
    with held(run):
        recorder.flush()
    recorder.close()
    assert steps(run) == [1]
    assert run.config.read_text() == "recipe: full\n"


def test_a_spool_too_long_for_one_transaction_is_merged_in_order(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "MERGE_LINES", 3)
    Recorder(run.database).close()
    append_spool(spool_of(run.database), {"metrics": [[step, 0.0, 0.0, "x", 0.0] for step in range(1, 9)]})
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 9)
    recorder.close()
    assert steps(run) == list(range(1, 10))


def test_a_checkpoint_does_not_wait_for_rows_that_come_back_from_the_spool(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    with held(run):
        put(recorder, 1)
        recorder.flush()
    put(recorder, 2)
    recorder.begin_flush()
    recorder.end_flush()
    waiting = [row[0] for row in read_spool(spool_of(run.database)).rows["metrics"]]
    assert waiting == [1, 2], "on disk, in the order in which they were recorded"
    recorder.close()
    assert steps(run) == [1, 2]


def test_a_spool_that_cannot_be_deleted_is_not_merged_twice(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    append_spool(spool_of(run.database), {"metrics": [[1, 0.0, 0.0, "x", 0.0]]})
    monkeypatch.setattr(Path, "unlink", lambda *_args, **_more: (_ for _ in ()).throw(PermissionError()))
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 2)
    recorder.flush()
    assert spool_of(run.database).exists()
    assert steps(run) == [1, 2]
    append_spool(spool_of(run.database), {"metrics": [[3, 0.0, 0.0, "x", 0.0]]})
    assert steps(run) == [1, 2, 3]
    recorder.close()
    assert steps(run) == [1, 2, 3]


# Held ------------------------------------------------------------------------------------------------


def test_a_held_database_delays_the_start_and_the_process_is_named(run: RunDir) -> None:
    reporter = Reporter(run)
    recorder, phases = reporter.recorder, [""]
    recorder._interval = 0.01
    with held(run, "w") as process:

        def tick() -> None:
            reporter.save()
            phases.append(read_state(run).phase)
            if recorder._waiting and "held" in phases[-1]:
                process.kill()

        recorder._on_tick = tick
        recorder.rewind(-1)
    put(recorder, 1)
    reporter.close(State.FINISHED, "", 0)
    assert steps(run) == [1]
    said = next(phase for phase in phases if "held" in phase)
    assert f"run.duckdb is held by process {process.pid} (python" in said
    assert f"process {process.pid}" in events(run)[0]
    assert str(run.path) not in said + events(run)[0]


def test_a_stop_ends_the_waiting_for_a_held_database(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "STOP_WAIT_S", 0.0)
    recorder = Recorder(run.database, interval=NEVER_S, stop=lambda: True)
    with held(run) as process, pytest.raises(BusyError, match=f"Not started: .*process {process.pid}"):
        recorder.rewind(-1)
    recorder.close()


def test_a_run_whose_database_is_held_beyond_its_end_says_what_is_pending(run: RunDir) -> None:
    reporter = Reporter(run)
    reporter.recorder.flush()
    with held(run) as process:
        put(reporter.recorder, 1, 2)
        assert reporter.close(State.FINISHED, "", 0) == 0
        state = read_state(run)
        assert (state.state, state.pending) == (State.FINISHED, 2)
        assert f"2 measurements in run.spool.jsonl; run.duckdb is held by process {process.pid}" in state.reason
        assert steps(run) == [1, 2]
    assert merge_spool(run) == 2
    assert (read_state(run).reason, steps(run)) == ("", [1, 2])


def test_the_end_waits_for_who_holds_the_database(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "END_WAIT_S", 60.0)
    recorder = Recorder(run.database, interval=0.0)
    recorder.flush()
    with held(run) as process:
        put(recorder, 1)

        def tick() -> None:
            if threading.current_thread() is threading.main_thread():
                process.kill()

        recorder._on_tick = tick
        assert recorder.close() == 0
    assert not spool_of(run.database).exists()
    assert steps(run) == [1]
    assert any("recording waited" in message for message in events(run))


def test_rows_go_to_the_spool_after_repeated_failure(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SPOOL_AFTER_ROUNDS", 4)
    recorder = Recorder(run.database, interval=NEVER_S)
    with held(run):
        put(recorder, 1)
        for _ in range(3):
            recorder._round()
        assert "held by process" in recorder.trouble
        assert not spool_of(run.database).exists()
        recorder._round()
        assert read_spool(spool_of(run.database)).count == 1
    recorder._round()
    assert recorder.trouble == ""
    recorder.close()
    assert steps(run) == [1]


# Vanished, damaged, replaced --------------------------------------------------------------------------


def _overwrite(path: Path) -> None:
    other = RunDir(path.parent / "other")
    other.path.mkdir()
    Recorder(other.database).close()
    path.write_bytes(other.database.read_bytes())


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: os.truncate(path, 0),
    "truncated": lambda path: os.truncate(path, 20_000),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(300_000)),
    "overwritten": _overwrite,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "link": lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"),
}


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_database_is_begun_anew_and_said(run: RunDir, how: str) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    recorder.tasks([(0, "a", "s", "c")])
    recorder.meta({"protocol": "pooled"})
    put(recorder, 1, 2)
    recorder.flush()
    reader = RunReader(run)
    reader.refresh()
    LOSSES[how](run.database)
    put(recorder, 3)
    recorder.close()
    assert steps(run) == [3]
    reader.refresh()
    assert reader.last.curves["x"].last.tolist() == [3]
    assert ([task.name for task in reader.last.tasks], reader.last.meta["protocol"]) == (["a"], "pooled")
    [message] = events(run)
    assert "begun" in message
    kept = list(run.path.glob("run.duckdb.damaged-*"))
    assert len(kept) == (how != "deleted")
    assert all(path.name in message for path in kept)


@pytest.mark.parametrize("how", ["deleted", "garbage"])
def test_a_database_lost_before_a_resume_is_begun_anew_and_said(run: RunDir, how: str) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1, 2)
    recorder.close()
    LOSSES[how](run.database)
    recorder = Recorder(run.database, interval=NEVER_S)
    recorder.rewind(2)
    put(recorder, 3)
    recorder.close()
    assert steps(run) == [3]
    [message] = events(run)
    assert ("was gone" if how == "deleted" else "is kept as") in message


def test_an_older_copy_put_back_is_noticed(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1)
    recorder.flush()
    copy = run.database.read_bytes()
    put(recorder, 2)
    recorder.flush()
    run.database.write_bytes(copy)
    put(recorder, 3)
    recorder.close()
    assert steps(run) == [1, 3]
    assert "older copy: its last 1 writes are missing" in events(run)[0]


def test_a_damaged_log_costs_no_more_than_the_log(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1)
    recorder.close()
    code = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]);"
        "c.execute(\"INSERT INTO metrics SELECT 100 + range, 9, 0.0, 0.0, 'x', 0.0 FROM range(500)\"); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(run.database)], check=True)
    log = Path(f"{run.database}.wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 255
    log.write_bytes(content)
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 2)
    recorder.close()
    assert steps(run) == [1, 2]
    assert "without its log" in events(run)[0]
    assert len(list(run.path.glob("*.damaged-*.wal"))) == 1


# Full disk -------------------------------------------------------------------------------------------


def test_a_full_disk_pauses_recording_and_loses_nothing(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1)
    recorder.flush()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the next write fails, as on a full disk
    try:
        for step in range(2, 30):
            recorder.curriculum(step, "p", [1.0 / step] * 2000, [step] * 2000)
        recorder._round()
        recorder.flush()
        assert recorder.stuck_seconds > 0
        assert "no room on the disk" in recorder.trouble
        assert read_spool(spool_of(run.database)).count == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recorder._round()
    assert (recorder.stuck_seconds, recorder.trouble) == (0.0, "")
    recorder.close()
    assert steps(run, "curriculum") == list(range(2, 30))
    assert "no room on the disk" in events(run)[0]


def test_a_run_whose_measurements_have_no_room_to_the_end_is_not_finished(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter(run)
    reporter.recorder.flush()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunAppender, "append", full)
    monkeypatch.setattr(RunAppender, "spool", full)
    put(reporter.recorder, 1, 2)
    assert reporter.close(State.FINISHED, "", 0) == RunError.exit_code
    state = read_state(run)
    assert state.state is State.FAILED
    assert "2 measurements are lost" in state.reason


def test_memory_has_a_bound(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 3)
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1, 2, 3, 4, 5)
    assert recorder.lost == 2
    recorder.close()
    assert steps(run) == [1, 2, 3]


def test_a_full_disk_under_state_and_console_raises_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter(run)
    from accl.training import report

    def full(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_state", full)
    monkeypatch.setattr("builtins.print", full)
    reporter.phase("training")
    reporter.event("info", "kind", "words")
    reporter.close(State.FINISHED, "", 0)
    monkeypatch.undo()
    assert events(run) == ["words"]


def test_console_output_that_a_full_disk_did_not_take_sets_no_exit_status(run: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from accl.store.rundir import RunDir;"
        "from accl.store.state import State;"
        "from accl.training.report import Reporter, say; r = Reporter(RunDir(Path(sys.argv[1]))); say('words');"
        "sys.exit(r.close(State.FINISHED, '', 0))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, str(run.path)], stdout=full, stderr=full)
    assert done.returncode == 0
    assert read_state(run).state is State.FINISHED


def test_a_row_of_the_wrong_type_holds_up_no_other(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    put(recorder, 1)
    recorder.metrics("2", 0.0, 0.0, {"x": 1.0})  # type: ignore[arg-type]
    recorder.event(0.0, "info", "file", "name \udcff")
    put(recorder, 3)
    recorder.close()
    assert steps(run) == [1, 3]
    assert events(run) == ["name ?", "1 rows do not fit the table metrics: dropped"]


@pytest.mark.parametrize("spooled", [False, True])
def test_matrices_are_recorded_alike_as_arrays_and_as_lists(run: RunDir, spooled: bool) -> None:
    matrix = np.array([0.1, np.nan, np.inf, -3.4e38], np.float32)
    counts = np.array([0, 1, 2**31 - 1, -(2**31)], np.int32)
    recorder = Recorder(run.database, interval=NEVER_S)
    recorder.confusion(1, "similarity", matrix, counts)
    recorder.confusion(1, "similarity", matrix.tolist(), counts.tolist())
    with held(run) if spooled else nullcontext():
        recorder.flush()
    assert spool_of(run.database).exists() == spooled
    recorder.close()
    with database_at(run.database).attached() as session:
        arrays, lists = session("SELECT matrix, counts FROM run.confusion ORDER BY seq")
    np.testing.assert_array_equal(np.float32(arrays[0]), matrix)
    np.testing.assert_array_equal(arrays[0], lists[0])
    assert arrays[1] == lists[1] == counts.tolist()


# Kills -----------------------------------------------------------------------------------------------


def test_a_commit_that_took_place_and_reported_an_error_is_not_repeated(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(run.database, interval=NEVER_S)
    run_statement = append.Session.__call__

    def fail_after_commit(session: append.Session, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        rows = run_statement(session, sql, *parameters)
        if sql == "COMMIT":
            raise BusyError("the commit reported an error")
        return rows

    put(recorder, 1)
    monkeypatch.setattr(append.Session, "__call__", fail_after_commit)
    recorder.flush()
    assert not spool_of(run.database).exists()
    monkeypatch.undo()
    put(recorder, 2)
    recorder.close()
    assert steps(run) == [1, 2]


def test_what_was_tested_is_forgotten_by_a_resume_and_recorded_once(run: RunDir) -> None:
    for _ in range(2):  # the second life resumes from the last step
        recorder = Recorder(run.database, interval=NEVER_S)
        recorder.rewind(5)
        recorder.evaluation(5, "test", {"n": 1, "accuracy": 0.5})
        recorder.task_evaluations([(5, "test", 0, 1, 1)])
        recorder.metrics(5, 0.0, 0.0, {"test/loss": 1.0})
        recorder.confusion(5, "similarity/test", [1.0], [1])
        recorder.predictions([("test", "q", 0, 1, 1, [0.5, 0.5])])
        recorder.meta({"tested_step": "5"})
        recorder.close()
    tables = ("task_evals", "metrics", "confusion", "predictions")
    counts = query(run.database, *((f"SELECT count(*) FROM run.{table}", ()) for table in tables))
    assert [rows[0][0] for rows in counts] == [1] * 4
    assert len(query(run.database, ("SELECT 1 FROM run.evals", ()))[0]) == 2
    assert query(run.database, ("SELECT value FROM run.meta WHERE key = 'tested_step'", ())) == [[("5",)]]


RECORD = """
import random, sys, time
from pathlib import Path
from accl.store import append, writer
from accl.store.writer import Recorder
append.MERGE_LINES = 7
writer.TRIES = 1
writer.SPOOL_AFTER_ROUNDS = 1
first = int(sys.argv[2])
recorder = Recorder(Path(sys.argv[1]), interval=0.001)
recorder.rewind(first - 1)
for step in range(first, first + 100_000):
    recorder.metrics(step, 0.0, 0.0, {"x": 1.0})
    recorder.task_evaluations([(step, "validation", 0, 1, 1)])
    if step % 5 == 0:
        recorder.flush()
        print(step, flush=True)
"""


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_rows_before_a_flush_are_there_once_after_any_kill(run: RunDir, kills: int) -> None:
    rng = random.Random(1)
    flushed = 0
    for number in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", RECORD, str(run.database), str(flushed + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        wanted = flushed + rng.randrange(5, 60)
        holder = None
        for line in process.stdout:
            flushed = int(line)
            if holder is None and number % 2 == 0:  # a reader in the way sends rows to the spool
                args = [sys.executable, "-c", HOLD, str(run.database), "r"]
                holder = subprocess.Popen(
                    args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            if flushed >= wanted:
                break
        time.sleep(rng.random() * 0.01)  # anywhere between two flushes
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        flushed = int(rest[-1]) if rest else flushed
        if holder is not None:
            holder.communicate(b"\n")
        for table in ("metrics", "task_evals"):
            [rows] = query(run.database, (f"SELECT step FROM run.{table} ORDER BY step", ()))
            found = [row[0] for row in rows]
            assert found == sorted(set(found)), table
            assert found[:flushed] == list(range(1, flushed + 1)), table


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_small_disk_that_fills_and_empties(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        run = RunDir(disk / "run")
        run.path.mkdir()
        write_state(run, RunState())
        reporter = Reporter(run)
        recorder = reporter.recorder
        put(recorder, 1)
        recorder.flush()
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(8 << 20))
        for step in range(2, 40):
            recorder.curriculum(step, "p", [1.0 / step] * 2000, [step] * 2000)
        recorder.flush()
        reporter.phase("training")
        assert recorder.stuck_seconds > 0
        ballast.unlink()
        reporter.close(State.FINISHED, "", 0)
        assert steps(run, "curriculum") == list(range(2, 40))
        assert read_state(run).state is State.FINISHED
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_older_spool_is_merged(run: RunDir) -> None:
    lines = [["metrics", [0, 1, 0.0, 0.0, "x", 1.0]], ["task_evals", [1, "validation", 0, 4, 3]]]
    spool_of(run.database).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert RunReader(run).refresh()
    recorder = Recorder(run.database, interval=NEVER_S)
    recorder.close()
    assert steps(run) == [1]
    assert not list(run.path.glob("*damaged*"))
    assert spool.MERGED in query(run.database, ("SELECT key FROM run.meta WHERE key = 'merged_spool'", ()))[0][0]
    with duckdb.connect(str(run.database)) as connection:
        assert connection.execute("SELECT count(*) FROM task_evals").fetchall() == [(1,)]


def test_a_full_disk_takes_the_end_of_a_run_where_its_state_stands(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter(run)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_state", no_room)
    assert reporter.close(State.FAILED, "no room", 7) == 7
    assert (read_state(run).state, read_state(run).reason, read_state(run).exit_code) == (State.FAILED, "no room", 7)


# Of another run --------------------------------------------------------------------------------------


def test_a_database_of_another_run_is_set_aside(run: RunDir) -> None:
    theirs = Recorder(run.database, interval=NEVER_S, run="theirs")
    theirs.rewind(-1)  # which keeps whose it is
    put(theirs, 1)
    theirs.close()
    for step in (2, 3):
        ours = Recorder(run.database, interval=NEVER_S, run="ours")
        put(ours, step)
        ours.close()
    assert steps(run) == [2, 3]
    assert "is of another run: theirs" in events(run)[0]
    assert len(list(run.path.glob("run.duckdb.damaged-*"))) == 1


def test_a_spool_of_another_run_is_neither_merged_nor_shown(run: RunDir) -> None:
    recorder = Recorder(run.database, interval=NEVER_S, run="ours")
    put(recorder, 1)
    recorder.flush()
    append_spool(spool_of(run.database), {"metrics": [(7, 0.0, 0.0, "x", 7.0)]}, "theirs")
    with pytest.raises(DamagedError, match=r"spool\.jsonl is of another run"):
        steps(run)
    put(recorder, 2)
    recorder.close()
    assert steps(run) == [1, 2]
    assert "run.spool.jsonl is of another run; it is kept as" in events(run)[0]
