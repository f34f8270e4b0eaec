"""Appending to the database and the spool of a run, one transaction at a time.

Every transaction writes the mark of its writer and its number into ``meta``. So the next one knows whether the database
is still the one that was written to, and whether a commit that reported an error took place all the same.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from accl.errors import DamagedError
from accl.store.database import REPLAY_FAILED, Session, database_at
from accl.store.instances import SIDE_FILES
from accl.store.schema import (
    COLUMNS,
    FOLLOWED,
    KEYS,
    SCHEMA_VERSION,
    STEPPED,
    VALIDATION_STEP,
    Key,
    by_key,
    create_statements,
    old_evals,
)
from accl.store.spool import MERGED, RUN, ForeignSpoolError, Spooled, Values, append_spool, read_spool, spool_of

WRITER = "writer"
# Lines of the spool merged in one transaction: few, so that nobody waits long for the file.
MERGE_LINES = 500
# The split that is evaluated when training has ended. A resumed run evaluates it again, whatever its checkpoint.
AFTER_TRAINING = "test"

# Answers of a validation that a resumed run repeats. Those that they replaced are gone.
_DELETE_VALIDATED_AFTER = (
    "DELETE FROM run.predictions WHERE split = 'validation' "
    f"AND (SELECT TRY_CAST(value AS BIGINT) FROM run.meta WHERE key = '{VALIDATION_STEP}') > ?"
)

Say = Callable[[str, str, str], None]


class RunAppender:
    """Database and spool of one run, for the one process that writes to it; used by one thread at a time.

    A database that vanished, is damaged or was replaced is set aside under another name and begun anew, with the
    rows of the tables of `KEYS` that were recorded before: tasks, facts about the run, questions and answers.

    Args:
        database: path of ``run.duckdb``; made when missing, and brought to the current schema.
        say: gets level, kind and message of what happened to the files.
        run: id that the run was made under; empty to believe the database.

    Attributes:
        unsure: whether the last commit reported an error and may have taken place all the same. The next call of
            `append` must have the same rows; they are not written twice.
    """

    def __init__(self, database: Path, say: Say, run: str = "") -> None:
        self.path, self.spool_path = database, spool_of(database)
        self.unsure = False
        self._database, self._say, self._run = database_at(database), say, run
        self._writer = secrets.token_hex(8)
        self._number = -1  # of the last transaction; below 0 before the first
        self._generation = 0
        self._made = False  # whether the first transaction found no database
        self._set_aside = False  # whether the database of the next transaction takes the place of a damaged one
        self._notes: list[str] = []  # to be said when the transaction is committed
        self._next_seq: dict[str, int] = {}
        self._kept: dict[str, dict[Key, Values]] = {table: {} for table in KEYS}
        self._damaged_lines = 0

    def append(self, rows: Mapping[str, Sequence[Values]]) -> bool:
        """Append rows, without ``seq``, after those of the spool.

        Returns:
            False when the spool had more rows than one transaction takes: ``rows`` are not written yet.

        Raises:
            BusyError: another process holds the database, or the disk is full.
            RunError: the database has a later schema.
            OSError: the disk failed.
        """
        return self._transaction(lambda session: self._insert(session, rows))

    def spool(self, rows: Mapping[str, Sequence[Values]]) -> None:
        """Append rows to the spool.

        Raises:
            OSError: it cannot be written.
        """
        assert not self.unsure
        if self.spool_path.is_symlink() or (self.spool_path.exists() and not self.spool_path.is_file()):
            self._set_aside_spool("is no file")
        append_spool(self.spool_path, rows, self._run)

    def rewind(self, step: int, validated: bool = True) -> bool:
        """Delete what was recorded after ``step``, and all that is recorded once training has ended.

        A step below 0 deletes everything. The ``generation`` in ``meta`` grows, so that readers start over.

        Args:
            validated: whether the validation at ``step`` itself stands; it is deleted otherwise.

        Returns, raises:
            as `append`.
        """
        return self._transaction(lambda session: self._delete_after(session, step, validated))

    def pending(self) -> int:
        """Return the number of rows in the spool; those merged before a kill are counted until the next merge."""
        with suppress(DamagedError, OSError):
            return read_spool(self.spool_path).count
        return 0

    def _transaction(self, work: Callable[[Session], None]) -> bool:
        for _ in SIDE_FILES:  # the log may be damaged, and then the database as well
            try:
                return self._try_transaction(work)
            except DamagedError as error:
                self._set_aside_database(error)
        return self._try_transaction(work)

    def _try_transaction(self, work: Callable[[Session], None]) -> bool:
        """Merge the spool and do ``work`` in one transaction; False, without ``work``, when rows of it are left."""
        if not os.path.lexists(self.path):
            self._set_aside_files(SIDE_FILES[1:])  # a log without its database
        self._notes = []
        with self._database.attached(write=True, tries=1) as session:
            session("BEGIN")
            try:
                number = self._prepare(session)
                committed = self.unsure and number > self._number
                spooled = self._read_spool(session.meta.get(MERGED, ""), self._run or session.meta.get(RUN, ""))
                if not committed:
                    number += 1
                    self._insert(session, spooled.rows)
                    if spooled.name:
                        self._set_meta(session, MERGED, spooled.mark)
                    if spooled.whole:
                        work(session)
                    self._set_meta(session, WRITER, f"{self._writer}:{number}")
                    self.unsure = True
                session("COMMIT")
            except BaseException:
                self._next_seq = {}
                with suppress(Exception):
                    session("ROLLBACK")
                raise
        self.unsure, self._set_aside, self._number = False, False, number
        for note in self._notes:
            self._say("error", "database", note)
        self._damaged_lines += spooled.damaged
        if spooled.whole and spooled.name:
            self._drop_spool(spooled)
        return spooled.whole

    def _prepare(self, session: Session) -> int:
        """Make the tables that are missing, check that this is the database that was written to before.

        Returns:
            The number of the last transaction that took place.

        Raises:
            DamagedError: it is another database.
        """
        meta = session.meta
        if not meta:
            self._create(session)
            return self._number
        generation = meta.get("generation", "")
        self._generation = int(generation) if generation.isdecimal() else int(time.time())
        if self._number < 0:
            if self._run and (made_as := meta.get(RUN) or self._run) != self._run:
                raise DamagedError(f"{self.path} is of another run: {made_as}.")
            if self._run:
                self._set_meta(session, RUN, self._run)
            if session.missing:
                _create_tables(session)
            if meta["schema_version"] == "1":
                _migrate_evals(session)
            self._kept = {table: _keyed_rows(session, table) | kept for table, kept in self._kept.items()}
            return self._number
        writer, _, number = meta.get(WRITER, "").partition(":")
        if writer != self._writer:
            raise DamagedError(f"{self.path} was replaced by another database.")
        if (behind := self._number - int(number)) > 0:
            self._next_seq = {}
            self._notes.append(f"{self.path.name} was replaced by an older copy: its last {behind} writes are missing")
        return int(number)

    def _create(self, session: Session) -> None:
        _create_tables(session)
        self._made, self._next_seq = self._number < 0 and not self._set_aside, {}
        # Readers of a database that vanished start over: the new one has a generation that none had before.
        self._generation = 0 if self._made else int(time.time())
        self._insert(session, {table: list(kept.values()) for table, kept in self._kept.items()})
        meta = {"schema_version": str(SCHEMA_VERSION), "generation": str(self._generation), RUN: self._run}
        self._insert(session, {"meta": list(meta.items())})
        if not self._made and not self._set_aside:
            self._notes.append(f"{self.path.name} was gone: it is begun anew, and what it held is missing")

    def _delete_after(self, session: Session, step: int, validated: bool) -> None:
        for table, columns in COLUMNS.items():
            if step < 0 and table != "meta":
                session(f"DELETE FROM run.{table}")
            elif table in STEPPED:
                session(f"DELETE FROM run.{table} WHERE step > ?", step)
            if "split" in columns:
                session(f"DELETE FROM run.{table} WHERE split = '{AFTER_TRAINING}'")
        session(f"DELETE FROM run.metrics WHERE name LIKE '{AFTER_TRAINING}/%'")
        if not validated:
            session("DELETE FROM run.evals WHERE step = ?", step)
            session("DELETE FROM run.task_evals WHERE step = ?", step)
            session("DELETE FROM run.metrics WHERE step = ? AND name LIKE 'validation/%'", step)
        session(f"DELETE FROM run.confusion WHERE kind LIKE '%/{AFTER_TRAINING}'")
        session(_DELETE_VALIDATED_AFTER, step if validated else step - 1)
        session("DELETE FROM run.questions WHERE id NOT IN (SELECT question_id FROM run.predictions)")
        if step >= 0 and self._made:
            self._notes.append(f"{self.path.name} was gone: what it held up to step {step} is missing")
        self._made = False
        if step < 0:
            session(f"DELETE FROM run.meta WHERE key NOT IN ('schema_version', 'generation', '{RUN}')")
            self._kept = {table: {} for table in KEYS}
        self._kept |= {table: _keyed_rows(session, table) for table in ("predictions", "questions")}
        self._set_meta(session, "generation", str(self._generation + 1))

    def _insert(self, session: Session, rows: Mapping[str, Sequence[Values]]) -> None:
        for table, new in rows.items():
            if not new:
                continue
            if key := KEYS.get(table):
                newest = by_key(table, new)
                self._kept[table] |= newest
                keys = ", ".join(f"unnest(?) AS {name}" for name in key)
                equal = " AND ".join(f"old.{name} = new.{name}" for name in key)
                delete = f"DELETE FROM run.{table} AS old USING (SELECT {keys}) AS new WHERE {equal}"
                session(delete, *map(list, zip(*newest, strict=True)))
                new = list(newest.values())
            if table in FOLLOWED:
                if table not in self._next_seq:
                    [[last]] = session(f"SELECT coalesce(max(seq), -1) FROM run.{table}")
                    self._next_seq[table] = last + 1
                first = self._next_seq[table]
                self._next_seq[table] += len(new)
                new = [(first + i, *row) for i, row in enumerate(new)]
            session.append(table, new)

    def _set_meta(self, session: Session, key: str, value: str) -> None:
        session("DELETE FROM run.meta WHERE key = ?", key)
        session("INSERT INTO run.meta VALUES (?, ?)", key, value)

    def _read_spool(self, merged: str, run: str) -> Spooled:
        try:
            return read_spool(self.spool_path, merged, MERGE_LINES, run)
        except DamagedError as error:
            self._set_aside_spool("is of another run" if isinstance(error, ForeignSpoolError) else "cannot be read")
            return Spooled()

    def _drop_spool(self, spooled: Spooled) -> None:
        # Where it cannot be deleted, `merged_spool` says that it is merged.
        with suppress(OSError):
            damaged = self._damaged_lines + (self.spool_path.stat().st_size > spooled.end)
            if damaged:
                self._set_aside_spool(f"has {damaged} damaged lines")
            else:
                self.spool_path.unlink()
            self._damaged_lines = 0

    def _set_aside_spool(self, what: str) -> None:
        aside = _aside(self.spool_path)
        os.rename(self.spool_path, aside)
        self._say("warning", "spool", f"{self.spool_path.name} {what}; it is kept as {aside.name}")

    def _set_aside_database(self, error: DamagedError) -> None:
        if REPLAY_FAILED in error.what:  # the database itself may be whole
            aside, new = self._set_aside_files(SIDE_FILES[1:]), "without its log the newest measurements are missing"
        else:
            aside, new = self._set_aside_files(SIDE_FILES), "a new one is begun"
            self._set_aside = True
        self._say("error", "database", f"{error.what} It is kept as {aside}, and {new}.")

    def _set_aside_files(self, suffixes: Sequence[str]) -> str:
        """Rename the database or the files beside it; returns the new name of the first."""
        aside = _aside(self.path)
        for suffix in suffixes:
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        return f"{aside.name}{suffixes[0]}"


def _aside(path: Path) -> Path:
    """Return a name beside a file that is free, and says that the file is damaged and since when."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    while os.path.lexists(aside):
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{secrets.token_hex(2)}")
    return aside


def _create_tables(session: Session) -> None:
    for statement in create_statements("run"):
        session(statement)


def _keyed_rows(session: Session, table: str) -> dict[Key, Values]:
    """Return the rows of a table of `KEYS`, by key."""
    return by_key(table, session(f"SELECT {', '.join(COLUMNS[table])} FROM run.{table}"))


def _migrate_evals(session: Session) -> None:
    rows = old_evals(session, "run")
    session("DROP TABLE run.evals")
    _create_tables(session)
    session.append("evals", rows)
    session("UPDATE run.meta SET value = ? WHERE key = 'schema_version'", str(SCHEMA_VERSION))
