"""The worker's side of the connection to the comparison."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from accl.bench.protocol import STOP, Candidate, WorkerError
from accl.errors import AcclError


class Parent:
    """The process that asks for measurements. Messages to it are pairs of a kind and its content."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, phase: str) -> None:
        """Report progress."""
        self._connection.send(("phase", phase))

    def send(self, result: object) -> None:
        """Send a `Ready`, a `MeasuredWindow` or whatever else was asked for."""
        self._connection.send(("result", result))

    def command(self) -> str:
        """Wait for the next command: `WINDOW`, `RATES` or `STOP`."""
        try:
            return str(self._connection.recv())
        except EOFError:  # the parent is gone
            return STOP


def serve(run: Callable[[Candidate, Parent], None]) -> None:
    """Run a worker on the connection whose file descriptor is the process's argument; errors go to the parent."""
    descriptor = int(sys.argv[1])
    # A process that this one starts and leaves behind would keep the connection open.
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    try:
        run(connection.recv(), Parent(connection))
    except AcclError as error:
        connection.send(("error", error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        reason = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        connection.send(("error", WorkerError(": ".join(reason))))
