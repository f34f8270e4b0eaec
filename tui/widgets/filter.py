"""The input line for a filter."""

from __future__ import annotations

from textual.message import Message
from textual.widgets import Input

from accl.text import printable
from tui.commands import bindings


class Filter(Input):
    """An input that is hidden until it is needed; posts `Changed` while typing and `Closed` after it."""

    BINDINGS = bindings("filter")

    class Closed(Message):
        """The user has finished typing."""

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, compact=True, id=id)
        self.display = False

    def validate_value(self, value: str) -> str:
        """Make what is typed or pasted printable."""
        return printable(value)

    def open(self) -> None:
        """Show the line and focus it."""
        self.display = True
        self.focus()

    def restore(self, text: str) -> None:
        """Show a filter that was kept from before, without the focus."""
        self.value, self.display = text, bool(text)

    def action_accept(self) -> None:
        self.display = bool(self.value)
        self.post_message(self.Closed())

    def action_clear(self) -> None:
        self.value = ""
        self.action_accept()
