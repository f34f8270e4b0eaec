"""Measurements of the app: ``python -m tui.bench PART ROOT SCALE`` prints figures as JSON.

The real app draws on a pseudo-terminal of 160 x 45 cells and is driven by keys typed there, in a process of its own for
each part, so that CPU time and memory are those of that part. SCALE is 1 in full, and less for a quick try.

Seconds are CPU seconds of the process from its start or from a key on: they hardly depend on what else runs on the
machine. A pause of the UI loop is its wall time, but no more than the process computed meanwhile.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from accl.store.deadline import ending
from tui.commands import of_scope

WIDTH, HEIGHT = 160, 45
TIMEOUT_S = 120.0
LOOK_S, REST_S = 0.005, 0.03
NO_EFFECT_S = 0.3  # a key that has written nothing by then changes nothing
CURVE = re.compile(rb"\xe2[\xa0-\xa3][\x80-\xbf]")  # Braille patterns in UTF-8: only curves are drawn with them
BYTES = {
    "enter": b"\r",
    "escape": b"\x1b",
    "ctrl+a": b"\x01",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
}
CURSORS = ("down", "right", "up", "left")  # first to where there is room, and back


class Figure(NamedTuple):
    """A measurement; ``most`` is how much it may be, if there is a limit."""

    what: str
    value: float
    unit: str
    most: float | None


class Terminal:
    """A pseudo-terminal in place of the streams of this process, read by a thread.

    Attributes:
        written: bytes that the terminal got.
        curves: whether it got a curve, since this was last set.
    """

    def __init__(self) -> None:
        self.written = 0
        self.curves = False
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        for stream in range(3):
            os.dup2(theirs, stream)
        threading.Thread(target=self._read, daemon=True).start()

    def type(self, key: str) -> None:
        """Send what the key sends."""
        os.write(self._ours, BYTES.get(key, key.encode()))

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ours, 1 << 16):
                self.curves = self.curves or CURVE.search(data) is not None
                self.written += len(data)


class Session:
    """The app on its terminal."""

    def __init__(self, root: Path, scale: float) -> None:
        self.terminal = Terminal()
        gc.disable()  # as `accl tui` starts it
        from tui.app import AcclApp

        self.app = AcclApp(root)
        self.scale = scale

    async def measure(self, part: Callable[[Session], Awaitable[list[Figure]]]) -> list[Figure]:
        """Run the app, measure, and leave it."""
        running = asyncio.create_task(self.app.run_async())
        try:
            return await part(self)
        finally:
            self.app.exit()
            await running

    async def shown(self, curves: bool = False) -> None:
        """Wait until the screen is complete, with at least one curve if asked for."""
        await self.until(lambda: self.complete and (self.terminal.curves or not curves))

    @property
    def complete(self) -> bool:
        """Whether the screen on top shows all that there is."""
        return self.app.is_running and bool(self.app.screen_stack) and getattr(self.app.screen, "is_complete", True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: it did not become true.
        """
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                name = type(self.app.screen).__name__ if self.app.screen_stack else "the app"
                raise TimeoutError(f"{name} was not complete, or drew no curve, within {TIMEOUT_S:g} s")
            await asyncio.sleep(LOOK_S)

    async def open(self, key: str) -> None:
        """Press a key that opens another screen."""
        before, self.terminal.curves = self.app.screen, False
        self.terminal.type(key)
        await self.until(lambda: self.app.screen is not before)

    async def press(self, key: str) -> tuple[float, int]:
        """Press a key, and return CPU milliseconds of the UI's thread and bytes written until the terminal rests."""
        cpu, written = time.thread_time(), self.terminal.written
        self.terminal.type(key)
        end = time.monotonic() + NO_EFFECT_S
        while self.terminal.written == written and time.monotonic() < end:
            await asyncio.sleep(REST_S)
        seen = -1
        while seen != self.terminal.written:
            seen = self.terminal.written
            await asyncio.sleep(REST_S)
        return 1000 * (time.thread_time() - cpu), self.terminal.written - written

    async def cursor(self, name: str, most_bytes: float | None = 4000) -> list[Figure]:
        """Move the cursor on what is shown."""
        await self.press("down")  # what is done once for a screen
        moves = max(1, round(20 * self.scale))
        samples = [await self.press(key) for key in CURSORS for _ in range(moves)]
        cpu, written = np.percentile(samples, 95, axis=0)
        return [
            Figure(f"cursor key on {name}, CPU (p95)", cpu, "ms", 16),
            Figure(f"cursor key on {name}, to the terminal (p95)", written, "bytes", most_bytes),
        ]


async def measure_list(session: Session) -> list[Figure]:
    """Measure the list of all runs, from the start of Python until it is there with a curve of the newest run."""
    await session.until(lambda: session.terminal.curves)
    seconds = time.process_time()
    await session.shown()
    return [
        Figure("list of runs with a curve of the newest, CPU", seconds, "s", 0.7),
        Figure("list of runs with all that is in sight, CPU", time.process_time(), "s", None),
        *await session.cursor("the list"),
    ]


async def measure_idle(session: Session, what: str = "finished", most: float = 1) -> list[Figure]:
    """Measure the app while nobody presses a key."""
    await session.shown()
    await asyncio.sleep(5 * session.scale)
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(20 * session.scale)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return [Figure(f"idle over {what} runs, of a core", 100 * share, "%", most)]


async def measure_live(session: Session) -> list[Figure]:
    """Measure the app while runs train, and nobody presses a key."""
    return await measure_idle(session, "live", 3)


async def measure_long(session: Session) -> list[Figure]:
    """Measure opening a long run."""
    await session.shown()
    pauses: list[float] = []
    watching = asyncio.create_task(_note_pauses(pauses))
    cpu = time.process_time()
    await session.open("enter")
    await session.shown(curves=True)
    cpu = time.process_time() - cpu
    watching.cancel()
    return [
        Figure("opening a long run, CPU", cpu, "s", 0.5),
        Figure("opening a long run, longest pause of the UI loop", 1000 * max(pauses), "ms", 50),
        Figure("opening a long run, peak memory", _peak_mib(), "MiB", 250),
    ]


async def measure_keys(session: Session) -> list[Figure]:
    """Measure keys on every screen and pane but the list."""
    await session.shown()
    await session.open("enter")
    figures = []
    for command in of_scope("run"):
        if command.keys and command.keys[0].isdigit():
            await session.press(command.keys[0])
            await session.shown()
            figures += await session.cursor(command.id.partition(".")[2])
    for opening, name in (("?", "help"), (":", "the palette")):
        await session.open(opening)
        figures += await session.cursor(name, most_bytes=None)
        await session.open("escape")
    return figures


async def measure_compare(session: Session) -> list[Figure]:
    """Measure comparing all runs."""
    await session.shown()
    await session.press("ctrl+a")
    cpu = time.process_time()
    await session.open("c")
    await session.until(lambda: session.terminal.curves)
    first = time.process_time() - cpu
    await session.shown()
    return [
        Figure("comparing runs, CPU to the first curve", first, "s", 1),
        Figure("comparing runs, CPU to all", time.process_time() - cpu, "s", 3),
        Figure("comparing runs, peak memory", _peak_mib(), "MiB", 300),
        *await session.cursor("the comparison"),
    ]


PARTS = {
    "list": measure_list,
    "idle": measure_idle,
    "live": measure_live,
    "long": measure_long,
    "keys": measure_keys,
    "compare": measure_compare,
}


async def _note_pauses(pauses: list[float]) -> None:
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(LOOK_S)
        pauses.append(min(time.perf_counter() - wall - LOOK_S, time.process_time() - cpu))


def _peak_mib() -> float:
    """Peak resident memory; not `getrusage`, which counts the process that started this one as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(part: str, root: Path, scale: float) -> None:
    """Measure, print the figures, each with the names of its fields, and end the process: with 1 if that failed."""
    streams = [os.dup(stream) for stream in range(3)]
    problem = ""
    try:
        figures = asyncio.run(Session(root, scale).measure(PARTS[part]))
    except TimeoutError as error:
        problem = str(error)
    finally:
        for stream, kept in enumerate(streams):
            os.dup2(kept, stream)
    if problem:
        print(problem, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    print(json.dumps([figure._asdict() for figure in figures]))  # noqa: T201
    sys.exit()


if __name__ == "__main__":
    with ending():
        main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
