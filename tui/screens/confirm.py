"""The question before something is done."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from tui import theme
from tui.commands import bindings
from tui.messages import Ask
from tui.widgets.keybar import KeyBar
from tui.widgets.text import Text


class ConfirmScreen(ModalScreen[bool]):
    """A question; the result is the answer."""

    BINDINGS = bindings("confirm")

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Text(id="question-text")
            yield KeyBar("confirm")

    def on_mount(self) -> None:
        self.query_one("#question-text", Text).show(
            [(self.ask.question, theme.TITLE)],
            [(self.ask.subject, theme.BOLD)],
            [],
            *([(line, theme.DIM)] for line in self.ask.consequences),
        )
