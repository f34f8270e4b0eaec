"""Text from runs, data sets and users, made safe to show.

A terminal acts on control characters: it sets its title, writes the clipboard, clears the screen. Bidirectional marks
make text read as what it is not, and line separators break tables. `printable` is the one function that all of it goes
through before it reaches a terminal, a table, a page or a picture.
"""

from __future__ import annotations

import re

# Everything that is not a visible character or an ordinary blank, by general category: controls (Cc), format characters
# such as bidirectional marks, zero-width characters and tags (Cf), surrogates (Cs), line and paragraph separators (Zl,
# Zp). Blanks other than U+0020 (Zs) are kept.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return the text in one line with nothing in it that a terminal, a table or a page would act upon.

    Tabs and line breaks become blanks. Other control characters become their pictures (U+2400 and following), and
    everything else that is invisible becomes its code point in brackets, as in ``[U+202E]``. Printable text is
    returned as it is.
    """
    return _UNSAFE.sub(_visible, text)


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, with its line feeds kept and tabs expanded to blanks."""
    return "\n".join(printable(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"
