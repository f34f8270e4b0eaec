"""A reader that attaches a run's database again and again, as fast as it can, until its stdin is closed.

``python -m accl.bench.reader DATABASE`` prints ``ready`` after its first read, and how often it read at the end.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from accl.store.reader import StoreBusyError, query


def main() -> None:
    database = Path(sys.argv[1])
    closed = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        closed.set()

    threading.Thread(target=wait, daemon=True).start()
    reads = 0
    while not closed.is_set():
        try:
            query(database, ("SELECT count(*), max(seq) FROM run.metrics", ()))
        except StoreBusyError:
            continue
        reads += 1
        if reads == 1:
            print("ready", flush=True)  # noqa: T201
    print(reads)  # noqa: T201


if __name__ == "__main__":
    main()
