"""Text from runs, data sets and users, made safe to show.

A terminal acts on control characters: it sets its title, writes the clipboard, clears the screen. Bidirectional marks
make text read as what it is not, and line separators break tables. `printable` is the one function that all of it goes
through before it reaches a terminal, a table, a page or a picture. Lists, counts, durations and values that several
layers write in words are here as well.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

# Everything that is not a visible character or an ordinary blank, by general category: controls (Cc), format characters
# such as bidirectional marks, zero-width characters and tags (Cf), surrogates (Cs), line and paragraph separators (Zl,
# Zp), and the two noncharacters that XML forbids. Blanks other than U+0020 (Zs) are kept.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
LONGEST = 10_000
_CREDENTIALS = (
    # User and password of an address, up to the last @ before its path.
    (re.compile(r'(?<=://)[^\s/?#"]{1,500}(?=@)'), "***"),
    # A password that holds a slash or the like unescaped; what reads as a port is none.
    (re.compile(r'(?<=://)[^\s/:@"]{0,500}:(?!\d*(?:[/?#]|$))[^\s"]{1,500}(?=@)'), "***"),
    # Parameters of an address, such as those that a signed one carries.
    (
        re.compile(r"""([?&][\w.-]{0,50}(?:token|key|secret|password|signature|credential|sig)=)[^\s&#"']+""", re.I),
        r"\1***",
    ),
    # Access tokens of the Hugging Face Hub and of GitHub.
    (re.compile(r"\b(hf_)(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}|\b(gh[pousr]_|github_pat_)\w{20,}"), r"\1\2***"),
)


def printable(text: str) -> str:
    """Return the text in one line with nothing in it that a terminal, a table or a page would act upon.

    Tabs and line breaks become blanks. Other control characters become their pictures (U+2400 and following), and
    everything else that is invisible becomes its code point in brackets, as in ``[U+202E]``. Printable text is
    returned as it is.
    """
    if text.isprintable():  # which is faster, and true of nearly all text
        return text
    return _UNSAFE.sub(_visible, text)


def spreadsheet_text(text: str) -> str:
    """Return the text printable, and with an apostrophe before what a spreadsheet would take for a formula."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(tuple("=+-@")) else text


def shortened(text: str) -> str:
    """Return the text cut to what anybody reads of a cell or a message: one of a run may have megabytes."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def listed(words: Sequence[str], conjunction: str) -> str:
    """Return the words with commas between them and a conjunction before the last: ``a, b or c``."""
    *others, last = words or [""]
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def counted(count: int, noun: str) -> str:
    """Write a number of things as ``1 run`` or ``1,200 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Write seconds in at most two units: ``0.8 s``, ``42 s``, ``3 m 07 s``, ``2 h 05 m``, ``2 d 03 h``.

    What is not known, or is no duration, is a dash.
    """
    if seconds is None or not 0 <= seconds < math.inf:
        return "–"
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def typed(value: object) -> str:
    """Write a value as it is typed after --set."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, with its line feeds kept and tabs expanded to blanks.

    Of a line that was rewritten by carriage returns, as progress bars are, the last version is kept.
    """
    return "\n".join(map(_last_version, text.split("\n")))


def printable_json(document: str) -> str:
    """Escape in a JSON document what `printable` would replace; the value that it holds stays the same."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1], document)


def without_credentials(text: str) -> str:
    """Return the text with ``***`` in place of the credentials in it.

    These are user and password of an address, secrets among the parameters of an address, and access tokens that can
    be told by how they begin.
    """
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def _last_version(line: str) -> str:
    return printable(line.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(4))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"
