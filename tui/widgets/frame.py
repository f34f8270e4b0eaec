"""What surrounds a screen: the line of keys at the foot, lines of text, a scrollable log."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.strip import Strip

from tui import theme
from tui.keys import KEYS, Key
from tui.text import Piece, cut, strip
from tui.widgets.drawn import Drawn, Listing


class KeyBar(Drawn):
    """The keys of the scopes in force, as many as fit; help and quit are always there."""

    def __init__(self, *scopes: str, id: str | None = None) -> None:
        super().__init__(id=id, classes="keybar")
        self.scopes = scopes
        self._spots: list[tuple[int, int, str]] = []

    def show(self, *scopes: str) -> None:
        if scopes != self.scopes:
            self.scopes = scopes
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        del height
        in_help = "help" in self.scopes
        always = [key for key in KEYS["everywhere"] if key.word and not (in_help and key.action == "help")]
        keys = [key for scope in self.scopes for key in KEYS[scope] if key.word]
        room = width - sum(_size(key) for key in always)
        shown: list[Key] = []
        for key in keys:
            if _size(key) <= room:
                shown.append(key)
                room -= _size(key)
        pieces: list[Piece] = []
        self._spots = []
        at = 0
        for key in [*shown, *always]:
            pieces += [(" " + key.main, theme.TITLE), (" " + key.word + " ", theme.DIM)]
            self._spots.append((at, at + _size(key), key.keys[0]))
            at += _size(key)
        return [strip(pieces, width)]

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._spots:
            if start <= event.x < end:
                self.app.simulate_key(key)


def _size(key: Key) -> int:
    return cell_len(key.main) + cell_len(key.word) + 3


class Text(Drawn):
    """Lines of styled pieces; what does not fit ends in an ellipsis."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.content: list[list[Piece]] = []

    def show(self, *lines: Sequence[Piece]) -> None:
        content = [list(line) for line in lines]
        if content != self.content:
            self.content = content
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        return [strip(shorten(line, width), width) for line in self.content[:height]]


class Log(Listing):
    """Lines of text, the newest at the end and in view unless somebody scrolls back."""

    head = 1

    def __init__(self, title: str, empty: str, *, wrap: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.wrap = wrap
        self.empty = empty
        self.entries: list[list[Piece]] = []

    def show(self, entries: Sequence[Sequence[Piece]]) -> None:
        found = [list(entry) for entry in entries]
        if found == self.entries:
            return
        following = self.cursor >= self.count - 1
        self.entries, self.count = found, len(found)
        if following:
            self.cursor = max(0, self.count - 1)
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        lines = [strip([(self.title, theme.TITLE)], width)]
        if not self.entries:
            return [*lines, strip([(cut(self.empty, width), theme.VERY_DIM)], width)]
        entries = [part for entry in self.entries for part in _wrapped(entry, width)] if self.wrap else self.entries
        self.count = len(entries)
        for index in self.window(height - self.head):
            ground = (
                Style(bgcolor=theme.CURSOR_UNFOCUSED.bgcolor) if self.has_focus and index == self.cursor else Style()
            )
            pieces = [(text, style + ground) for text, style in shorten(entries[index], width)]
            lines.append(strip(pieces, width, ground))
        return lines


def _wrapped(entry: Sequence[Piece], width: int) -> list[list[Piece]]:
    """A sign and a text, the text folded beside the sign."""
    (sign, sign_style), *rest = entry
    indent = " " * cell_len(sign)
    words = textwrap.wrap("".join(text for text, _ in rest), max(8, width - len(indent)))
    style = rest[0][1] if rest else sign_style
    return [[(sign if i == 0 else indent, sign_style), (line, style)] for i, line in enumerate(words)] or [list(entry)]


def shorten(pieces: Sequence[Piece], width: int) -> list[Piece]:
    """The pieces in at most ``width`` cells."""
    kept: list[Piece] = []
    left = width
    for i, (text, style) in enumerate(pieces):
        size = cell_len(text)
        rest = sum(cell_len(later) for later, _ in pieces[i + 1 :])
        if size <= left and (size < left or rest == 0):
            kept.append((text, style))
            left -= size
        else:
            kept.append((cut(text + ("…" if rest else ""), left), style))
            break
    return kept
