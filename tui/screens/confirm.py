"""The question before a run is stopped."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from tui import theme
from tui.keys import bindings
from tui.widgets.frame import KeyBar, Text


class ConfirmScreen(ModalScreen[bool]):
    """Answers whether the run should be stopped."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("confirm")

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Text(id="question-text")
            yield KeyBar("confirm")

    def on_mount(self) -> None:
        self.query_one("#question-text", Text).show(
            [("Stop this run?", theme.TITLE)],
            [(self.run_id, theme.BOLD)],
            [],
            [("It finishes its step, writes a checkpoint,", theme.DIM)],
            [("and can be resumed later.", theme.DIM)],
        )

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
