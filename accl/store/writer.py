"""Writing ``run.duckdb``: rows are queued, and a thread appends them about once a second.

DuckDB allows one writing process or many readers, so nobody holds the file: each append attaches it, commits one
transaction and detaches it. While a reader holds the file rows wait in memory, and after repeated failure in
``run.spool.jsonl``, from where a later append merges them. Training neither waits for this nor fails because of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections import defaultdict
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
# Readers hold the file for a few milliseconds, so a few short tries nearly always suffice.
TRIES = 20
TRY_AGAIN_S = 0.02
# Failed appends in a row (about half a minute) after which rows go to the spool.
SPOOL_AFTER_ROUNDS = 30

Row = Sequence[Any]


class Recorder:
    """Writer of the measurements of one run.

    Methods may be called from any thread and return at once, except `flush`, `close` and `rewind`, which wait for
    the disk.

    Args:
        database: path of ``run.duckdb``; made when missing, and brought to the current schema.
        on_tick: called in the background after every append (the heartbeat).
        interval: seconds between appends.

    Raises:
        RunError: the file is locked, is no database, or has a later schema.
    """

    def __init__(self, database: Path, on_tick: Callable[[], None] | None = None, interval: float = INTERVAL_S) -> None:
        self._database = database
        self._spool = database.with_name("run.spool.jsonl")
        self._on_tick = on_tick
        self._interval = interval
        self._connection = duckdb.connect(":memory:")
        self._queue: defaultdict[str, list[Row]] = defaultdict(list)
        self._queue_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._failed_rounds = 0
        self._closing = threading.Event()
        try:
            self._next_seq = self._transaction(self._open)
        except duckdb.Error as error:
            what = f"{database} cannot be opened: {_first_line(error)}"
            raise RunError(what, "Is another process writing to this run?") from error
        self._thread = threading.Thread(target=self._loop, name="recorder", daemon=True)
        self._thread.start()

    def metrics(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        """Record metrics of a step; ``seconds`` is running time since the first start of the run."""
        self._put("metrics", [(step, epoch, seconds, name, value) for name, value in values.items()])

    def curriculum(self, step: int, policy: str, weights: Sequence[float], drawn: Sequence[int]) -> None:
        """Record the task distribution in force from ``step`` on, and questions drawn of each task so far."""
        self._put("curriculum", [(step, policy, list(weights), list(drawn))])

    def confusion(self, step: int, kind: str, matrix: Sequence[float], counts: Sequence[int]) -> None:
        """Record a K x K confusion matrix and the pairs behind each cell, both row by row."""
        self._put("confusion", [(step, kind, list(matrix), list(counts))])

    def evaluation(self, step: int, split: str, values: Mapping[str, float | None]) -> None:
        """Record one evaluation: number of questions ``n``, and metrics by name; None where one was not measured."""
        self._put("evals", [(step, split, name, float(value)) for name, value in values.items() if value is not None])

    def task_evaluations(self, rows: Iterable[tuple[int, str, int, int, int]]) -> None:
        """Record rows of (step, split, task, n, correct)."""
        self._put("task_evals", list(rows))

    def predictions(self, rows: Iterable[tuple[str, str, int, int, int, list[float]]]) -> None:
        """Record rows of (split, question id, task, gold, predicted, probabilities)."""
        self._put("predictions", list(rows))

    def system(self, seconds: float, values: Sequence[float | None]) -> None:
        """Record GPU %, GPU bytes, watts, CPU %, resident bytes; None for what the machine lacks."""
        self._put("system", [(seconds, *values)])

    def event(self, seconds: float, level: str, kind: str, message: str) -> None:
        """Record an event; ``level`` is ``info``, ``warning`` or ``error``."""
        self._put("events", [(seconds, level, kind, message)])

    def tasks(self, rows: Iterable[tuple[int, str, str, str]]) -> None:
        """Record rows of (task, name, subcategory, category)."""
        self._put("tasks", list(rows))

    def meta(self, values: dict[str, str]) -> None:
        """Record facts about the run as a whole, by key."""
        self._put("meta", list(values.items()))

    def flush(self) -> None:
        """Bring all queued rows to disk: to the database or, when that stays locked, to the spool."""
        with self._file_lock:
            self._append(last_chance=True)

    def close(self) -> None:
        """Stop the thread and flush."""
        self._closing.set()
        self._thread.join()
        self.flush()
        self._connection.close()

    def rewind(self, step: int) -> None:
        """Delete measurements after ``step``, which a run resumed from there records again.

        A step below 0 deletes everything. The ``generation`` in ``meta`` grows, so that followers start over.
        """
        self.flush()

        def delete() -> None:
            for table in COLUMNS:
                if table in STEPPED:
                    self._run(f"DELETE FROM run.{table} WHERE step > ?", step)
                elif table != "meta" and (step < 0 or table == "predictions"):
                    self._run(f"DELETE FROM run.{table}")
            if step < 0:
                self._run("DELETE FROM run.meta WHERE key NOT IN ('schema_version', 'generation')")
            self._run(
                "UPDATE run.meta SET value = CAST(CAST(value AS INTEGER) + 1 AS VARCHAR) WHERE key = 'generation'"
            )

        with self._file_lock:
            self._transaction(delete)

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
        """Move queued rows to the database. The caller holds the file lock."""
        with self._queue_lock:
            batch, self._queue = self._queue, defaultdict(list)
        if not any(batch.values()) and not self._spool.exists():
            return
        try:
            self._transaction(lambda: self._insert(batch))
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

    def _insert(self, batch: dict[str, list[Row]]) -> None:
        spooled = self._read_spool()
        for table in spooled | batch:
            self._append_rows(table, [*spooled.get(table, ()), *batch.get(table, ())])
        if spooled:
            self._run("DELETE FROM run.meta WHERE key = 'merged_spool'")
            self._run("INSERT INTO run.meta VALUES ('merged_spool', ?)", self._spool_digest())

    def _append_rows(self, table: str, rows: list[Row]) -> None:
        if rows:
            appender = self._connection.appender(f"run.{table}")
            appender.append_rows(rows)
            appender.flush()

    def _spool_digest(self) -> str:
        try:
            return hashlib.blake2b(self._spool.read_bytes(), digest_size=16).hexdigest()
        except FileNotFoundError:
            return ""

    def _write_spool(self, batch: dict[str, list[Row]], error: Exception) -> None:
        # On a full disk the rows are lost; the console says so and training goes on.
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
                with contextlib.suppress(json.JSONDecodeError):  # a line truncated by a kill
                    table, row = json.loads(line)
                    wide = table == "evals" and len(row) == len(EVALS_1_COLUMNS)
                    rows.setdefault(table, []).extend(long_evals(row) if wide else [row])
        return rows

    def _run(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        # Always fetch: a pending result keeps the connection busy in DuckDB 2.
        return self._connection.execute(sql, parameters).fetchall()

    def _transaction(self, work: Callable[[], Any]) -> Any:
        """Attach the file as ``run``, do ``work`` in one transaction, detach; retried while the file is locked."""
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
            result = work()
            self._run("COMMIT")
            return result
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._run("ROLLBACK")
            raise
        finally:
            self._run("DETACH run")

    def _open(self) -> dict[str, int]:
        """Create missing tables, migrate schema 1, and return the next ``seq`` of followed tables."""
        self._create_tables()
        meta = dict(self._run("SELECT key, value FROM run.meta"))
        version = meta.get("schema_version")
        if version is None:
            self._run("INSERT INTO run.meta VALUES ('schema_version', ?), ('generation', '0')", str(SCHEMA_VERSION))
        elif problem := schema_problem(version):
            raise RunError(f"{self._database} {problem}.", "Go on with the accl that wrote it.")
        elif version == "1":
            self._migrate_evals()
        if meta.get("merged_spool") == self._spool_digest():  # a process was killed before it could delete the file
            self._spool.unlink()
        next_seq = {table: self._run(f"SELECT coalesce(max(seq), -1) + 1 FROM run.{table}")[0][0] for table in FOLLOWED}
        for table, rows in self._read_spool().items():
            if table in next_seq:
                next_seq[table] = max(next_seq[table], *(int(row[0]) + 1 for row in rows))
        return next_seq

    def _create_tables(self) -> None:
        for statement in create_statements("run"):
            self._run(statement)

    def _migrate_evals(self) -> None:
        old = self._run(f"SELECT {', '.join(EVALS_1_COLUMNS)} FROM run.evals ORDER BY seq")
        self._run("DROP TABLE run.evals")
        self._create_tables()
        self._append_rows("evals", [row for wide in old for row in long_evals(wide)])
        self._run("UPDATE run.meta SET value = ? WHERE key = 'schema_version'", str(SCHEMA_VERSION))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
