"""The list of commands, narrowed by typing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from accl.text import printable
from tui import theme
from tui.command import Command
from tui.commands import SCOPES, bindings
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table

COLUMNS = (Column("command", 50, grow=True), Column("keys", 16), Column("where", 22, rank=1))


class CommandTable(Table):
    """A table whose cursor is the one to look at, although the input has the focus."""

    def background(self) -> Style:
        return theme.CURSOR


class PaletteScreen(ModalScreen[Command | None]):
    """Commands to choose from; the result is the one chosen."""

    BINDINGS = bindings("palette")

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self.commands = {command.id: command for command in commands}

    def compose(self) -> ComposeResult:
        with Vertical(id="palette"):
            yield Input(placeholder="part of a command", compact=True)
            yield CommandTable(COLUMNS, "No command contains all of these words.", id="commands")
            yield KeyBar("palette")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.show("")

    @on(Input.Changed)
    def _narrow(self, event: Input.Changed) -> None:
        self.show(event.value)

    def show(self, typed: str) -> None:
        """List the commands that contain all words, those in which they begin words first."""
        words = printable(typed).lower().split()
        matching: list[tuple[bool, Row]] = []
        for command in self.commands.values():
            where = SCOPES[command.scope]
            text = f" {command.title} {where}".lower()
            if all(word in text for word in words):
                cells = ((command.title, theme.PLAIN), (command.keys_display, theme.TITLE), (where, theme.DIM))
                matching.append((all(f" {word}" in text for word in words), Row(command.id, cells)))
        table = self.query_one(Table)
        table.show([row for _, row in sorted(matching, key=lambda match: not match[0])])
        table.move_to(0)

    def action_move(self, lines: int) -> None:
        self.query_one(Table).action_move(lines)

    @on(Listing.Chosen)
    @on(Input.Submitted)
    def action_accept(self) -> None:
        self.dismiss(self.commands.get(self.query_one(Table).key or ""))
