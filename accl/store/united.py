"""One catalog of the rows of a database and those that wait in its spool, for readers."""

from __future__ import annotations

from accl.store.database import Session
from accl.store.schema import COLUMNS, FOLLOWED, KEYS, SCHEMA_VERSION, TABLES, by_key, old_evals
from accl.store.spool import Rows


def unite(session: Session, spooled: Rows) -> None:
    """Make a catalog ``run`` in memory, of the current schema, with the rows of ``file`` and spooled rows.

    Spooled rows get the ``seq`` that they will have once they are merged, so that a reader's cursor stays valid.
    """
    session("ATTACH ':memory:' AS run")
    version = session.meta.get("schema_version", "")
    facts = {row[0]: row[1] for row in spooled.get("meta", [])} | {"schema_version": str(SCHEMA_VERSION)}
    facts.setdefault("generation", session.meta.get("generation", "spool"))
    for table, columns in TABLES.items():
        rows = list(facts.items()) if table == "meta" else spooled.get(table, [])
        if key := KEYS.get(table):
            rows = list(by_key(table, rows).values())
        old = old_evals(session, "file") if table == "evals" and version == "1" else []
        kept = bool(version) and not old and table not in session.missing
        if table in FOLLOWED:
            last = session(f"SELECT max(seq) FROM file.{table}")[0][0] if kept else old[-1][0] if old else None
            first = 0 if last is None else last + 1
            rows = [(first + i, *row) for i, row in enumerate(rows)]
        session(f"CREATE TABLE run.spooled_{table} ({columns})")
        session.append(table, [*old, *rows], prefix="spooled_")
        union = ""
        if kept:
            replaced = f" ANTI JOIN run.spooled_{table} USING ({', '.join(key)})" if key else ""
            union = f"SELECT {', '.join(COLUMNS[table])} FROM file.{table}{replaced} UNION ALL "
        session(f"CREATE VIEW run.{table} AS {union}FROM run.spooled_{table}")
    session.meta |= {str(key): str(value) for key, value in facts.items()}
    session.missing.clear()
