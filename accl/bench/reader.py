"""``python -m accl.bench.reader DATABASE``: attach a run's database again and again until stdin is closed.

It prints ``ready`` after its first read, and the number of its reads at the end.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from accl.store.reader import StoreBusyError, query


def main() -> None:
    database = Path(sys.argv[1])
    waiting = threading.Thread(target=sys.stdin.read, daemon=True)
    waiting.start()
    reads = 0
    while waiting.is_alive():
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
