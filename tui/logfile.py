"""A log that may be of any size and may grow, read by offset: a part at a time, never whole.

A line begins at the start of the file, after a line feed, or where a block without one has ended: no line is longer
than two blocks.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from accl.errors import DamagedError
from accl.store.files import RESTORE, open_run_file
from accl.text import LONGEST, printable_lines, shortened

BLOCK = 2**16
AROUND = 1  # blocks that are read on either side of the one that is asked for
SLICE = 2**23  # bytes searched at a time
CHUNK = 2**20
MAX_HITS = 1_000_000
HEAD = 64  # bytes by which a file is known again
_STEP = re.compile(rb"step (\d[\d,]{0,12})")


@dataclass(frozen=True)
class Line:
    """A line as it is shown; ``end`` is the offset of the next one."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Part:
    """Lines of a file, one after the other.

    Attributes:
        size: bytes of the file when they were read.
        generation: another number once the file was truncated or replaced.
    """

    lines: tuple[Line, ...] = ()
    size: int = 0
    generation: int = 0

    def covers(self, offset: int) -> bool:
        """Return whether the line at an offset is among these."""
        return bool(self.lines) and self.lines[0].start <= offset < self.lines[-1].end

    @property
    def is_first(self) -> bool:
        """Whether no line comes before these."""
        return not self.lines or self.lines[0].start == 0

    @property
    def is_last(self) -> bool:
        """Whether no line comes after these."""
        return not self.lines or self.lines[-1].end >= self.size


@dataclass
class Search:
    """Lines that contain a text, whatever the case of its ASCII letters.

    Attributes:
        hits: offset of the first occurrence in each line, in order; at most `MAX_HITS`.
        end: offset up to which whole lines were searched.
        more: whether there is more to search.
    """

    text: str
    hits: array[int] = field(default_factory=lambda: array("q"))
    end: int = 0
    more: bool = True

    @property
    def needle(self) -> bytes:
        return self.text.encode(errors="replace").lower()


class LogFile:
    """A log. Whatever it is asked may block on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0
        self._inode, self._size, self._head = 0, 0, b""

    def around(self, offset: int | None) -> Part:
        """Read the lines around an offset, or those at the end; none where there is no file.

        Raises:
            DamagedError: it is no regular file, or cannot be read.
        """
        try:
            descriptor = open_run_file(self.path)
        except FileNotFoundError:
            self._know(0, 0, b"")
            return Part((), 0, self._generation)
        with open(descriptor, "rb", buffering=0) as file:
            try:
                state = os.fstat(descriptor)
                self._know(state.st_ino, state.st_size, os.pread(descriptor, HEAD, 0))
                size = state.st_size
                block = min(size if offset is None else offset, max(0, size - 1)) // BLOCK
                lines = tuple(_lines(file.fileno(), max(0, block - AROUND), block + AROUND + 1, size))
            except OSError as error:
                raise DamagedError(f"{self.path} cannot be read ({error.strerror}).", RESTORE) from error
        return Part(lines, size, self._generation)

    def _know(self, inode: int, size: int, head: bytes) -> None:
        if inode != self._inode or size < self._size or not head.startswith(self._head):
            self._generation += 1
        self._inode, self._size, self._head = inode, size, head

    def search(self, search: Search) -> None:
        """Search the next `SLICE` of the file; a line that has no end yet is searched again next time.

        Raises:
            FileNotFoundError, DamagedError: the file cannot be read.
        """
        del search.hits[bisect_left(search.hits, search.end) :]
        stop = search.end + SLICE
        for start, data, is_whole in self._chunks(search.end):
            for hit in _visible_hits(data, search.needle):
                search.hits.append(start + hit)
                if len(search.hits) >= MAX_HITS:
                    search.more = False
                    return
            if is_whole:
                search.end = start + len(data)
            if search.end >= stop:
                return
        search.more = False

    def at_step(self, step: float) -> int | None:
        """Return the offset of the last line that names a step up to ``step``.

        Only a part whose first and last step are on both sides of it is searched line by line: steps mostly rise.

        Raises:
            FileNotFoundError, DamagedError: as `search`.
        """
        found = None
        for start, data, _ in self._chunks(0):
            first, last = _STEP.search(data), _STEP.match(data, max(0, data.rfind(b"step ")))
            if first is None or (last and min(_number(first), _number(last)) > step):
                continue
            if last and _number(last) <= step:
                found = start + last.start()
                continue
            for hit in _visible_hits(data, b"step "):
                named = _STEP.match(data, hit)
                if named and _number(named) <= step:
                    found = start + hit
        return found

    def _chunks(self, start: int) -> Iterator[tuple[int, bytes, bool]]:
        """Yield parts of the file that end with a line, and whether that line is known to have ended."""
        with open(open_run_file(self.path), "rb", buffering=0) as file:
            while True:
                try:
                    data = os.pread(file.fileno(), CHUNK, start)
                except OSError as error:
                    raise DamagedError(f"{self.path} cannot be read ({error.strerror}).", RESTORE) from error
                end = data.rfind(b"\n") + 1
                is_last = len(data) < CHUNK
                if end or not is_last:
                    yield start, data[: end or len(data)], True
                if is_last:
                    if end < len(data):
                        yield start + end, data[end:], False
                    return
                start += end or len(data)


def step_of(text: str) -> int | None:
    """Return the step that a line names, None if it names none."""
    named = _STEP.search(text.encode(errors="replace"))
    return _number(named) if named else None


def _number(named: re.Match[bytes]) -> int:
    return int(named[1].replace(b",", b""))


def _lines(descriptor: int, first: int, end: int, size: int) -> Iterator[Line]:
    """Read the lines that begin in the blocks from ``first`` to before ``end``."""
    low, high = max(0, first - 1) * BLOCK, min(size, (end + 1) * BLOCK)
    data = os.pread(descriptor, max(0, high - low), low)
    starts = {0} if low == 0 else set()
    starts.update(match.end() for match in re.finditer(rb"\n", data))
    starts.update(at + BLOCK for at in range(0, len(data), BLOCK) if data.find(b"\n", at, at + BLOCK) < 0)
    ordered = sorted(start for start in starts if start < len(data))
    for start, after in zip(ordered, [*ordered[1:], len(data)], strict=True):
        if first * BLOCK <= low + start < end * BLOCK:
            yield Line(low + start, low + after, _shown(data[start:after]))


def _shown(line: bytes) -> str:
    """Return a line as it is shown; it is cut first, for a line may be all controls."""
    last_version = line.rstrip(b"\r\n").rsplit(b"\r", 1)[-1]
    return shortened(printable_lines(last_version[: LONGEST + 1].decode(errors="replace")).rstrip())


def _visible_hits(data: bytes, needle: bytes) -> Iterator[int]:
    """Yield the first occurrence in each line, of what no carriage return has overwritten; the needle is lower-case."""
    lower = data.lower()
    hit = lower.find(needle)
    while hit >= 0:
        end = data.find(b"\n", hit)
        end = len(data) if end < 0 else end
        last = end
        while last > hit and data[last - 1] == 0x0D:
            last -= 1
        overwritten = data.rfind(b"\r", hit, last)
        if overwritten >= 0:
            hit = lower.find(needle, overwritten + 1)
        else:
            yield hit
            hit = lower.find(needle, end + 1)
