"""Standard streams on which no text can act, and which take every character.

What accl prints goes through `accl.text` before; the streams hold it for all that does not: libraries, warnings,
tracebacks, and the messages of the command line's own parser, which quote what was typed.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

from accl.errors import AcclError
from accl.text import printable, without_credentials

_LAYOUT = re.compile(r"([\n\r\t])")  # which every program prints on purpose


class GuardedStream:
    """A text stream in front of another that makes what is written to it printable and masks credentials.

    Attributes:
        styled: the same stream for text that was made printable before and has the escapes of styles in it.
    """

    buffer = None  # so that nobody writes past it

    def __init__(self, stream: TextIO, lossy: bool, clean: Callable[[str], str] | None = None) -> None:
        """Take the stream, and whether text that it does not take, as on a full disk, is dropped without an error."""
        self._stream, self._lossy, self._clean = stream, lossy, clean or _clean
        self.styled: GuardedStream = self if clean else GuardedStream(stream, lossy, str)

    def write(self, text: str) -> int:
        """Write the text, and return its length.

        Raises:
            AcclError: it cannot be written: the disk is full, or the like.
        """
        if text != "":  # the command line's parser tries with none and with bytes, and takes an error for an answer
            self._try(self._stream.write, self._clean(text))
        return len(text)

    def flush(self) -> None:
        """Write what is still held back; raises as `write`."""
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if self._lossy:
                return
            # Or else what is held back would fail again when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise AcclError(f"The output cannot be written ({error.strerror}).") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams(encoding: str | None = None, lossy: bool = False) -> None:
    """Put guards before stdout and stderr for the rest of this process.

    A character that the encoding lacks becomes a question mark. A stream that was closed goes to the null device, so
    that no file opened later takes its place.

    Args:
        encoding: of both from now on; the environment's when None.
        lossy: whether stdout drops what it cannot write, as stderr always does.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name) or os.fdopen(descriptor, "w", encoding="utf-8")
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_usable(encoding or stream.encoding), errors="replace")
        setattr(sys, name, GuardedStream(stream, lossy or name == "stderr"))


def _usable(encoding: str) -> str:
    """Return the encoding, or UTF-8 for one that does not take every text, as PYTHONIOENCODING=idna."""
    try:
        "\n".join("é▶" * 40).encode(encoding, "replace")
        return encoding
    except (UnicodeError, LookupError):
        return "utf-8"


def styled(stream: TextIO) -> TextIO:
    """Return the stream for text that was made printable before; the stream itself where it is not guarded."""
    return cast(TextIO, getattr(stream, "styled", stream))


def _clean(text: str) -> str:
    """Make text printable whose line breaks and tabs are meant."""
    return "".join(part if part in "\n\r\t" else printable(part) for part in _LAYOUT.split(without_credentials(text)))
