"""Workers, one process for each candidate: no memory pool, compiler or setting is shared. Both ends of the connection.

A string from a worker is progress, an exception the reason why it ended, and everything else a result.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from accl.bench.protocol import Candidate, WorkerError
from accl.errors import AcclError
from accl.launch.process import environment

# Modules of peers that are not transformers' Trainer.
PEERS = {"sentence-transformers": "accl.bench.sentence_peer"}
GRACE_S = 10.0  # for a worker to end after its connection is closed


class BenchWorker:
    """Process of a candidate, started at once.

    Args:
        limit: seconds allowed for building and warming up, and for each command.
        say: receives the progress that the worker reports.
    """

    def __init__(self, candidate: Candidate, limit: float, say: Callable[[str], None]) -> None:
        self._limit, self._say = limit, say
        self._doing = "building and warming up"
        self._connection, other = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        module = "accl.bench.loop" if candidate.backend else PEERS.get(candidate.peer, "accl.bench.peer")
        command = [sys.executable, "-m", module, str(other.fileno())]
        with other:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[other.fileno()],
                env=environment() if candidate.backend else None,  # as the trainer of a run
            )
        say("loading libraries")
        self.ask(candidate)

    def ask(self, command: object) -> None:
        """Send a command; `answer` has its result."""
        with suppress(OSError):  # `answer` says that the process has ended
            self._connection.send(command)

    def answer(self) -> Any:
        """Wait for a result: first the description of the candidate that is ready, then one for each command.

        Raises:
            WorkerError: the worker failed, or took longer than the limit.
            AcclError: as it was raised in the worker.
        """
        end = time.monotonic() + self._limit
        while self._connection.poll(max(0.0, end - time.monotonic())):
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                raise self._ended() from None
            if isinstance(message, Exception):
                raise message
            if not isinstance(message, str):
                self._doing = "its window"
                return message
            self._say(message)
        raise WorkerError(f"{self._doing} had not ended after {self._limit:.0f} s.", "Allow more with --limit SECONDS.")

    def close(self) -> None:
        """End the process; closing again does nothing."""
        self._connection.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ended(self) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        return WorkerError(f"its process ended with exit code {self._process.returncode}{last}")


def serve(run: Callable[[Candidate, Connection], None]) -> None:
    """Run a worker on the connection whose file descriptor is the process's argument; errors go to the comparison."""
    descriptor = int(sys.argv[1])
    # A process that this one starts and leaves behind would keep the connection open.
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    try:
        run(connection.recv(), connection)
    except AcclError as error:
        connection.send(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        reason = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        connection.send(WorkerError(": ".join(reason)))


def commands(connection: Connection) -> Iterator[str]:
    """Yield commands until the other end of the connection is closed."""
    with suppress(EOFError):
        while True:
            yield connection.recv()
