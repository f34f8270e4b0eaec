"""The line in which a filter is typed."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Input

from tui.keys import bindings


class Filter(Input):
    """Hidden until it is needed. Posts `Changed` while typing and `Left` when the typing is over."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("filter")

    class Left(Message):
        """Typing is over."""

    def __init__(self, placeholder: str, *, id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, compact=True, id=id)
        self.display = False

    def begin(self) -> None:
        self.display = True
        self.focus()

    def action_accept(self) -> None:
        self.display = bool(self.value)
        self.post_message(self.Left())

    def action_drop(self) -> None:
        self.value = ""
        self.action_accept()
