"""A database of a run is attached safely, and busy, damaged and absent are three answers."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from factory import finished_run

from accl.errors import AbsentError, BusyError, DamagedError, RunError
from accl.store import database, instances
from accl.store.columns import RunReader
from accl.store.database import DiskFullError, Session, database_at
from accl.store.reader import query
from accl.store.rundir import RunDir

HOLD = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'r'); print(1, flush=True); input()"
)


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return finished_run(tmp_path, steps=60, questions=60)


@pytest.fixture(name="held")
def _held(run: RunDir) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.database), "w"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield process
    process.communicate("\n")


def change(run: RunDir, *statements: str) -> None:
    with duckdb.connect(str(run.database)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def count(run: RunDir, table: str = "metrics") -> int:
    return int(query(run.database, (f"SELECT count(*) FROM run.{table}", ()))[0][0][0])


def test_a_held_database_is_busy_and_the_process_is_named(run: RunDir, held: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match=f"process {held.pid} \\(python"):
        count(run)
    reader = RunReader(run)
    assert not reader.refresh()
    assert isinstance(reader.problem, BusyError)
    assert reader.stale_seconds > 0


def test_nothing_there_is_absent(run: RunDir) -> None:
    run.database.unlink()
    with pytest.raises(AbsentError, match="does not exist"):
        count(run)
    reader = RunReader(run)
    assert not reader.refresh()
    assert isinstance(reader.problem, AbsentError)
    duckdb.connect(str(run.database)).close()
    with pytest.raises(AbsentError, match="no table"):
        count(run)


@pytest.mark.parametrize("size", [0, 1, 4096, 12288, 100_000, 1_000_000])
def test_a_truncated_database_is_damaged(run: RunDir, size: int) -> None:
    os.truncate(run.database, size)
    with pytest.raises(DamagedError, match=r"run\.duckdb") as caught:
        RunReader(run).refresh()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1b[2Jb", "a'b", "(PID 7)", "No space left on device"])
def test_a_damaged_database_is_damaged_whatever_its_folder_is_called(run: RunDir, name: str) -> None:
    folder = RunDir(run.path.rename(run.path.parent / name))
    folder.database.write_bytes(b"no database")
    with pytest.raises(DamagedError):
        RunReader(folder).refresh()


@pytest.mark.parametrize("suffix", ["", ".wal"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link"])
def test_only_regular_files_are_attached(run: RunDir, kind: str, suffix: str) -> None:
    path = Path(f"{run.database}{suffix}")
    if not suffix:
        path.rename(run.path / "elsewhere.duckdb")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(run.path / ("elsewhere.duckdb" if kind == "link" else "nowhere"))
    with pytest.raises(DamagedError, match="is not a file"):
        count(run)


def test_garbage_for_a_log_hides_nothing(run: RunDir) -> None:
    rows = count(run)
    Path(f"{run.database}.wal").write_bytes(random.Random(0).randbytes(5000))
    assert count(run) == rows


def test_a_file_below_a_file_is_damage(run: RunDir) -> None:
    with pytest.raises(DamagedError, match="Not a directory"):
        query(run.database / "run.duckdb", ("SELECT 1", ()))


@pytest.mark.parametrize(
    "definition",
    [
        "VIEW events AS SELECT 0::BIGINT seq, 0.0::DOUBLE AS \"seconds\", 'info' \"level\", 'k' kind, content message "
        "FROM read_text('/etc/hostname')",
        "VIEW events AS SELECT 0::BIGINT seq, 0.0::DOUBLE AS \"seconds\", 'info' \"level\", 'k' kind, 'm' message "
        "FROM range(1000000000000) a, range(1000000000000) b",
        "TABLE events (seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message INTEGER)",
        "TABLE events (seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, "
        "message VARCHAR GENERATED ALWAYS AS (kind))",
        "TABLE events (seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR DEFAULT current_user)",
        "TABLE events (seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR, more VARCHAR)",
        "TABLE others (a INTEGER)",
    ],
)
def test_only_base_tables_of_ours_are_read(run: RunDir, definition: str) -> None:
    change(run, "DROP TABLE events", f"CREATE {definition}")
    for table in ("events", "metrics"):
        with pytest.raises(DamagedError, match="`events`"):
            count(run, table)
    with pytest.raises(DamagedError, match="`events`"), database_at(run.database).attached(write=True):
        pass


def test_another_database_is_not_that_of_a_run(run: RunDir) -> None:
    run.database.unlink()
    change(run, "CREATE TABLE mine (a INTEGER)")
    with pytest.raises(DamagedError, match="not the database of a run"):
        count(run)


def test_facts_without_a_schema_are_damage(run: RunDir) -> None:
    change(run, "DELETE FROM meta")
    with pytest.raises(DamagedError, match="names no schema"):
        count(run)


def test_a_schema_named_like_the_catalog_hides_nothing(run: RunDir) -> None:
    rows = count(run)
    change(
        run,
        "CREATE SCHEMA run.run",
        "CREATE TABLE run.run.metrics AS SELECT 1 a",
        "CREATE VIEW run.main.extra AS SELECT 1 a",
    )
    assert count(run) == rows


def test_triggers_are_not_written_to(run: RunDir) -> None:
    change(run, "CREATE TRIGGER t AFTER INSERT ON metrics FOR EACH STATEMENT INSERT INTO meta VALUES ('a', 'b')")
    with pytest.raises(DamagedError, match="triggers"), database_at(run.database).attached(write=True):
        pass


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_csv('http://localhost/x.csv')",
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "ATTACH '{folder}/other.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/']",
    ],
)
def test_an_attached_database_reaches_nothing_else(run: RunDir, sql: str) -> None:
    with pytest.raises(RunError):
        query(run.database, (sql.format(folder=run.path), ()))
    assert sorted(path.name for path in run.path.iterdir() if path.suffix in (".csv", ".duckdb")) == ["run.duckdb"]


def test_an_endless_query_ends(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "READ_LIMIT_S", 0.2)
    for sql in (
        "SELECT count(*) FROM range(1000000000000) a, range(1000000) b WHERE a.range + b.range = 1",
        "SELECT * FROM range(100000000000)",
    ):
        with pytest.raises(BusyError, match=r"no answer within 0\.2 s|cannot be used now"):
            query(run.database, (sql, ()))
    assert count(run) > 0


def test_a_read_that_never_returns_keeps_other_threads_no_longer_than_the_limit(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "READ_LIMIT_S", 0.05)
    at = database_at(run.database)
    with at._lock, pytest.raises(BusyError, match="no answer"):
        count(run)


@pytest.mark.parametrize(
    "name", ["exp:v2", "s3:", "a'b", 'a"b', "a;b", "g*[a]", "pct%20", "new\nline", "uni\u202ecode", " "]
)
def test_no_name_of_a_folder_is_taken_for_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = finished_run(tmp_path / name, steps=20)
    monkeypatch.chdir(tmp_path)
    assert count(RunDir(Path(name) / run.id)) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_question_mark_in_a_path_is_refused(tmp_path: Path) -> None:
    finished_run(tmp_path / "ab", steps=20).path.rename(tmp_path / "a?b")
    with pytest.raises(RunError, match="reads what follows a \\? as options"):
        query(tmp_path / "a?b" / "run.duckdb", ("SELECT 1 FROM run.meta", ()))


@pytest.fixture(name="runs")
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    runs = [finished_run(tmp_path / "runs", seed=seed, steps=20) for seed in range(4)]
    monkeypatch.setattr(instances, "_idle", [])
    return runs


def test_runs_that_lie_together_are_read_by_one_instance(runs: list[RunDir], tmp_path: Path) -> None:
    assert all(count(run) for run in [*runs, *runs])
    assert len(instances._idle) == 1
    other = RunDir(shutil.copytree(runs[0].path, tmp_path / "elsewhere" / runs[0].id))
    assert count(other)
    assert len(instances._idle) == 2


def test_instances_are_closed_when_there_are_many(runs: list[RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "TOGETHER", 1)
    monkeypatch.setattr(instances, "KEPT", 2)
    assert all(count(run) for run in [*runs, *runs])
    assert len(instances._idle) == 2


def test_who_writes_reaches_no_other_run(runs: list[RunDir]) -> None:
    assert count(runs[0])
    with database_at(runs[0].database).attached(write=True) as session, pytest.raises(RunError):
        session(f"ATTACH '{runs[1].database}' AS other")
    assert len(instances._idle) == 2


def test_damage_is_not_left_to_the_runs_beside_it(runs: list[RunDir]) -> None:
    os.truncate(runs[0].database, 100_000)
    assert count(runs[1])
    (instance,) = instances._idle
    with pytest.raises(DamagedError):
        RunReader(runs[0]).refresh()
    assert count(runs[1])
    assert instance not in instances._idle


def test_a_run_that_never_answers_keeps_no_other_waiting(runs: list[RunDir]) -> None:
    with database_at(runs[0].database).attached() as session:
        assert count(runs[1])
        assert session("SELECT count(*) FROM run.tasks")


def test_rows_that_no_run_records_are_damage(run: RunDir) -> None:
    change(run, "INSERT INTO confusion VALUES (999, 1, 'similarity', [1.0, 2.0, 3.0], [1, 2, 3])")
    with pytest.raises(DamagedError, match="holds what no run records"):
        RunReader(run).refresh()


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded", "File too large"])
def test_a_full_disk_is_told_from_damage(run: RunDir, words: str) -> None:
    error = database_at(run.database).explain(duckdb.IOException(f"IO Error: Could not write file: {words}"))
    assert isinstance(error, DiskFullError)
    assert type(database_at(run.database).explain(duckdb.IOException("IO Error: Stale file handle"))) is BusyError


READ = """
import sys
from pathlib import Path
from accl.errors import AcclError
from accl.store.columns import RunReader
from accl.store.rundir import RunDir
for folder in Path(sys.argv[1]).iterdir():
    try:
        RunReader(RunDir(folder)).refresh()
        print("read")
    except AcclError as error:
        assert "\\n" not in str(error), error
        print(type(error).__name__)
"""


def damaged(content: bytes, rng: random.Random) -> bytes:
    data, at = bytearray(content), rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            del data[at:]
        case 1:
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            end = min(len(data), at + rng.choice([1, 512, 4096, 262144]))
            data[at:end] = bytes(end - at)
        case 3:
            for _ in range(rng.randrange(1, 50)):
                data[rng.randrange(12288)] = rng.randrange(256)
        case 4:
            end = min(len(data), at + rng.choice([16, 4096, 262144]))
            data[at:end] = rng.randbytes(end - at)
    return bytes(data)


@pytest.mark.parametrize("files", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_damage_never_ends_the_process(run: RunDir, tmp_path: Path, files: int) -> None:
    whole = run.database.read_bytes()
    for number in range(files):
        folder = tmp_path / "damaged" / str(number)
        folder.mkdir(parents=True)
        (folder / "run.duckdb").write_bytes(damaged(whole, random.Random(number)))
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path / "damaged")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.split()
    assert len(answers) == files
    assert {"DamagedError"} <= set(answers) <= {"read", "DamagedError"}


def test_a_session_knows_the_facts(run: RunDir) -> None:
    with database_at(run.database).attached() as session:
        assert isinstance(session, Session)
        assert session.meta["schema_version"] == "2"
