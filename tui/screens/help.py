"""The help page, made from the list of commands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from tui import theme
from tui.commands import SCOPES, bindings, of_scope
from tui.text import Piece, fit, strip
from tui.widgets.keybar import KeyBar
from tui.widgets.strip import Navigable, StripWidget

STATES = "… queued  ◌ starting  ▶ running  ◍ stalled  ✓ finished  ✗ failed  ■ stopped  ☠ crashed"
KEYS_WIDTH, COLUMN_WIDTH, MAX_COLUMNS = 13, 66, 3

Block = list[tuple[str, str]]  # keys and description; the first line is the title


class KeyPage(Navigable, StripWidget, can_focus=True):
    """All commands in columns, those of the scopes in force first; `top` is the first visible line."""

    BINDINGS = bindings("help")
    top = 0

    def __init__(self, first: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.scopes = [*first, *(scope for scope in SCOPES if scope not in first)]

    def blocks(self) -> list[Block]:
        """Return a block of lines for each scope, and one for the states."""
        blocks = [
            [(SCOPES[scope], ""), *((command.keys_display or ":", command.title) for command in of_scope(scope))]
            for scope in self.scopes
        ]
        return [*blocks, [("States", ""), *((state[:1], state[2:]) for state in STATES.split("  "))]]

    def columns(self, count: int) -> list[Block]:
        """Return the blocks in so many columns of about the same height, in reading order."""
        blocks = self.blocks()
        height = sum(len(block) + 1 for block in blocks) / count
        columns: list[Block] = [[] for _ in range(count)]
        done = 0
        for block in blocks:
            columns[min(count - 1, int((done + len(block) / 2) / height))] += [*block, ("", "")]
            done += len(block) + 1
        return columns

    def page(self) -> list[list[Piece]]:
        """Return every line of the page."""
        count = max(1, min(MAX_COLUMNS, self.size.width // COLUMN_WIDTH))
        width = self.size.width // count
        return [
            [piece for cell in line for piece in _cell(*cell, width)]
            for line in zip_longest(*self.columns(count), fillvalue=("", ""))
        ]

    @property
    def page_height(self) -> int:
        return self.size.height

    def action_move(self, lines: int) -> None:
        self.top = max(0, min(self.top + lines, len(self.page()) - self.size.height))
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        return [strip(line, width) for line in self.page()[self.top : self.top + height]]


def _cell(keys: str, description: str, width: int) -> list[Piece]:
    if not description:
        return [(fit(keys, width), theme.TITLE)]
    return [
        ("  " + fit(keys, KEYS_WIDTH) + " ", theme.BOLD),
        (fit(description, max(0, width - KEYS_WIDTH - 4)) + " ", theme.DIM),
    ]


class HelpScreen(ModalScreen[None]):
    """All keys, by the screen or widget in which they work; those in ``scopes`` first."""

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__()
        self.scopes = scopes

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield KeyPage(self.scopes, id="keys")
            yield KeyBar("help")
