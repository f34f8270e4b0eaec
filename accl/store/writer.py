"""The trainer's side of ``run.duckdb``: queue rows, let a thread append them about once a second.

DuckDB allows one writing process or many readers, so nobody holds the file: each append attaches it,
writes one transaction and detaches it again. A file that a reader happens to hold is tried again; rows wait in
memory meanwhile, and after repeated failure go to ``run.spool.jsonl``, from where they are merged
later. Training never waits for any of this and never dies of it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from accl.errors import RunError
from accl.store.schema import (
    COLUMNS,
    EVALS_1_COLUMNS,
    FOLLOWED,
    SCHEMA_VERSION,
    STEPPED,
    create_statements,
    long_evals,
    schema_problem,
)

INTERVAL_S = 1.0
# A reader holds the file for a few milliseconds, so a handful of short tries nearly always suffices.
TRIES = 20
TRY_AGAIN_S = 0.02
# So many failed rounds in a row (about half a minute) send the rows to the spool file.
SPOOL_AFTER_ROUNDS = 30

Row = Sequence[Any]


class Recorder:
    """Writes the measurements of one run. Every method may be called from any thread and returns at once,
    but `flush` and `close`, which wait until the rows are on disk.

    Args:
        database: path of ``run.duckdb``; made when it is not there.
        on_tick: called in the background about once a second (the heartbeat).
        interval: seconds between appends.

    Raises:
        RunError: the file is there and is not a database of this schema.
    """

    def __init__(self, database: Path, on_tick: Callable[[], None] | None = None, interval: float = INTERVAL_S) -> None:
        self._database = database
        self._spool = database.with_name("run.spool.jsonl")
        self._on_tick = on_tick
        self._interval = interval
        self._connection = duckdb.connect(":memory:")
        self._queue: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self._queue_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._failed_rounds = 0
        self._closing = threading.Event()
        try:
            self._next_seq = self._transaction(self._open)
        except duckdb.Error as error:
            raise RunError(
                f"{database} cannot be opened: {_first_line(error)}",
                "Is another process writing to this run?",
            ) from error
        self._thread = threading.Thread(target=self._loop, name="recorder", daemon=True)
        self._thread.start()

    # What can be recorded ------------------------------------------------------------------------

    def metrics(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        self._put("metrics", [(step, epoch, seconds, name, value) for name, value in values.items()])

    def curriculum(self, step: int, policy: str, weights: Sequence[float], drawn: Sequence[int]) -> None:
        self._put("curriculum", [(step, policy, list(weights), list(drawn))])

    def confusion(self, step: int, kind: str, matrix: Sequence[float], counts: Sequence[int]) -> None:
        """``matrix`` and ``counts`` are K x K, row by row."""
        self._put("confusion", [(step, kind, list(matrix), list(counts))])

    def evaluation(self, step: int, split: str, values: Mapping[str, float | None]) -> None:
        """Record one evaluation of a split.

        Args:
            values: number of questions ``n``, and every metric by name; None where it could not be measured.
        """
        self._put("evals", [(step, split, name, float(value)) for name, value in values.items() if value is not None])

    def task_evaluations(self, rows: Iterable[tuple[int, str, int, int, int]]) -> None:
        """Rows of (step, split, task, n, correct)."""
        self._put("task_evals", list(rows))

    def predictions(self, rows: Iterable[tuple[str, str, int, int, int, list[float]]]) -> None:
        """Rows of (split, question id, task, gold, predicted, probabilities)."""
        self._put("predictions", list(rows))

    def system(self, seconds: float, values: Sequence[float | None]) -> None:
        """``values``: GPU %, GPU bytes, watts, CPU %, resident bytes; None where there is no such thing."""
        self._put("system", [(seconds, *values)])

    def event(self, seconds: float, level: str, kind: str, message: str) -> None:
        self._put("events", [(seconds, level, kind, message)])

    def tasks(self, rows: Iterable[tuple[int, str, str, str]]) -> None:
        """Rows of (task, name, subcategory, category)."""
        self._put("tasks", list(rows))

    def meta(self, values: dict[str, str]) -> None:
        self._put("meta", list(values.items()))

    # Life ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when every row put so far is on disk, in the database or, if that stays locked, in the spool."""
        with self._file_lock:
            self._append(last_chance=True)

    def close(self) -> None:
        """Stop the thread and `flush`."""
        self._closing.set()
        self._thread.join()
        self.flush()
        self._connection.close()

    def rewind(self, step: int) -> None:
        """Forget what lies after ``step``: a run resumed from there will record it again.

        A step below 0 forgets everything. Followers see the new ``generation`` in ``meta`` and start over.
        """
        self.flush()

        def forget(db: str) -> None:
            for table in COLUMNS:
                if table in STEPPED:
                    self._run(f"DELETE FROM {db}.{table} WHERE step > ?", [step])
                elif table != "meta" and (step < 0 or table == "predictions"):
                    self._run(f"DELETE FROM {db}.{table}")
            if step < 0:
                self._run(f"DELETE FROM {db}.meta WHERE key NOT IN ('schema_version', 'generation')")
            self._run(
                f"UPDATE {db}.meta SET value = CAST(CAST(value AS INTEGER) + 1 AS VARCHAR) WHERE key = 'generation'"
            )

        with self._file_lock:
            self._transaction(forget)

    # Inside --------------------------------------------------------------------------------------

    def _put(self, table: str, rows: list[Row]) -> None:
        with self._queue_lock:
            if table in self._next_seq:
                first = self._next_seq[table]
                self._next_seq[table] = first + len(rows)
                rows = [(first + i, *row) for i, row in enumerate(rows)]
            self._queue[table].extend(rows)

    def _loop(self) -> None:
        while not self._closing.wait(self._interval):
            with self._file_lock:
                self._append(last_chance=False)
            if self._on_tick is not None:
                self._on_tick()

    def _append(self, last_chance: bool) -> None:
        """Move queued rows to the file. The caller holds the file lock."""
        with self._queue_lock:
            batch = {table: rows for table, rows in self._queue.items() if rows}
            self._queue = {table: [] for table in COLUMNS}
        if not batch and not self._spool.exists():
            return
        try:
            self._transaction(lambda db: self._insert(db, batch))
            self._failed_rounds = 0
            self._spool.unlink(missing_ok=True)
        except (duckdb.Error, OSError) as error:
            self._failed_rounds += 1
            if last_chance or self._failed_rounds >= SPOOL_AFTER_ROUNDS:
                self._write_spool(batch, error)
            else:
                with self._queue_lock:
                    for table, rows in batch.items():
                        self._queue[table][:0] = rows

    def _insert(self, db: str, batch: dict[str, list[Row]]) -> None:
        for table, rows in self._read_spool().items():
            batch = {**batch, table: [*rows, *batch.get(table, [])]}
        for table, rows in batch.items():
            self._append_rows(db, table, rows)

    def _append_rows(self, db: str, table: str, rows: list[Row]) -> None:
        appender = self._connection.appender(f"{db}.{table}")
        appender.append_rows(rows)
        appender.flush()

    def _write_spool(self, batch: dict[str, list[Row]], error: Exception) -> None:
        # The disk may be full as well; then the rows are lost and the console says so, but training goes on.
        try:
            with open(self._spool, "a", encoding="utf-8") as file:
                for table, rows in batch.items():
                    file.writelines(json.dumps([table, row]) + "\n" for row in rows)
        except OSError as spool_error:
            count = sum(len(rows) for rows in batch.values())
            print(f"accl: {count} measurements lost: {_first_line(error)}; {spool_error}", flush=True)  # noqa: T201

    def _read_spool(self) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {}
        with contextlib.suppress(FileNotFoundError), open(self._spool, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                    table, row = json.loads(line)
                    wide = table == "evals" and len(row) == len(EVALS_1_COLUMNS)
                    rows.setdefault(table, []).extend(long_evals(row) if wide else [row])
        return rows

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # An unfinished result owns the connection in DuckDB 2: always fetch.
        return self._connection.execute(sql, list(parameters)).fetchall()

    def _transaction(self, work: Callable[[str], Any]) -> Any:
        """Attach the file, do ``work`` in one transaction, detach. Tries again while somebody holds the file."""
        path = str(self._database).replace("'", "''")
        for attempt in range(TRIES):
            try:
                self._run(f"ATTACH '{path}' AS run")
                break
            except duckdb.IOException:
                if attempt == TRIES - 1:
                    raise
                time.sleep(TRY_AGAIN_S)
        try:
            self._run("BEGIN")
            result = work("run")
            self._run("COMMIT")
            return result
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._run("ROLLBACK")
            raise
        finally:
            self._run("DETACH run")

    def _open(self, db: str) -> dict[str, int]:
        """Make missing tables, bring those of schema 1 up to date, and return the next ``seq`` of followed tables."""
        for statement in create_statements(db):
            self._run(statement)
        found = self._run(f"SELECT value FROM {db}.meta WHERE key = 'schema_version'")
        if found and (problem := schema_problem(found[0][0])):
            raise RunError(f"{self._database} {problem}.", "Go on with the accl that wrote it.")
        if not found:
            self._run(
                f"INSERT INTO {db}.meta VALUES ('schema_version', ?), ('generation', '0')",
                [str(SCHEMA_VERSION)],
            )
        elif found[0][0] == "1":
            self._migrate_evals(db)
        next_seq = {
            table: int(self._run(f"SELECT coalesce(max(seq), -1) + 1 FROM {db}.{table}")[0][0]) for table in FOLLOWED
        }
        for table, rows in self._read_spool().items():
            if table in next_seq and rows:
                next_seq[table] = max(next_seq[table], max(int(row[0]) for row in rows) + 1)
        return next_seq

    def _migrate_evals(self, db: str) -> None:
        old = self._run(f"SELECT {', '.join(EVALS_1_COLUMNS)} FROM {db}.evals ORDER BY seq")
        self._run(f"DROP TABLE {db}.evals")
        for statement in create_statements(db):
            self._run(statement)
        self._append_rows(db, "evals", [row for wide in old for row in long_evals(wide)])
        self._run(f"UPDATE {db}.meta SET value = ? WHERE key = 'schema_version'", [str(SCHEMA_VERSION)])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
