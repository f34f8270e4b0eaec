"""A line of text that is asked for."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from accl.text import printable
from tui import theme
from tui.commands import bindings
from tui.messages import Prompt
from tui.widgets.keybar import KeyBar
from tui.widgets.suggest import WordSuggester
from tui.widgets.text import Text


class Line(Input):
    """The line; what is typed or pasted is made printable."""

    BINDINGS = bindings("prompt")

    def validate_value(self, value: str) -> str:
        return printable(value)

    def action_complete(self) -> None:
        self.action_end()
        self.action_cursor_right()  # which takes what is suggested


class PromptScreen(ModalScreen[str | None]):
    """Asks for a line of text, which is the result; None leaves everything as it was."""

    def __init__(self, prompt: Prompt) -> None:
        super().__init__()
        self.prompt = prompt

    def compose(self) -> ComposeResult:
        with Vertical(id="prompt"):
            yield Text(id="prompt-text")
            suggester = WordSuggester(lambda: self.prompt.words)
            yield Line(self.prompt.value, compact=True, suggester=suggester, id="prompt-line")
            yield KeyBar("prompt")

    def on_mount(self) -> None:
        self.query_one("#prompt-text", Text).show(
            [(self.prompt.title, theme.TITLE), (f"  {self.prompt.subject}", theme.BOLD)],
            *([(line, theme.DIM)] for line in self.prompt.explanation),
        )

    @on(Input.Submitted)
    def _accept(self) -> None:
        self.dismiss(self.query_one(Line).value)
