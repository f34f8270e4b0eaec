"""The line of keys at the bottom of a screen."""

from __future__ import annotations

from textual import events
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from tui import theme
from tui.command import Command
from tui.commands import held, of_scope
from tui.text import Piece, cell_len, cut, strip
from tui.widgets.strip import StripWidget

NARROW, TINY = 100, 40  # below them, the list of commands and the way back have to make room
NOTE_S = 3.0


class KeyBar(StripWidget):
    """The keys of the given scopes, as many as fit.

    How to leave is always shown: what escape does, and help and quit on every screen but modal ones. What
    cannot be done now is left out, as seen at the last `redraw`.
    """

    _note = ""
    _timer: Timer | None = None

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = scopes
        self._click_targets: list[tuple[range, str]] = []

    def on_mount(self) -> None:
        self.watch(self.screen, "focused", lambda: self.redraw(), init=False)

    def say(self, note: str) -> None:
        """Show a note in place of the keys for `NOTE_S`."""
        if self._timer is not None:
            self._timer.stop()
        self._note, self._timer = note, self.set_timer(NOTE_S, lambda: self.say("")) if note else None
        self.redraw()

    def show(self, *scopes: str) -> None:
        """Show the keys of other scopes."""
        if scopes != self.scopes:
            self.scopes = scopes
            self.redraw()

    def _is_offered(self, command: Command) -> bool:
        """Return whether the node that has a command can do it; one without the focus is not asked."""
        nodes = (self.screen.focused or self.screen).ancestors_with_self
        node = next((node for node in nodes if command.id in held(node)), None)
        return node is None or bool(command.enabled(node))

    def draw(self, width: int, height: int) -> list[Strip]:
        if self._note:
            self._click_targets = []
            return [strip([(cut(f" {self._note}", width), theme.MARK)], width)]
        everywhere = [] if self.screen.is_modal else [command for command in of_scope("everywhere") if command.label]
        # The list of commands is the first of them to make room.
        everywhere = [command for command in everywhere if width >= NARROW or command.run != "palette"]
        own = [
            command
            for scope in self.scopes
            for command in of_scope(scope)
            if command.label and self._is_offered(command)
        ]
        leaving = [command for command in own if "escape" in command.keys]
        others = sorted((command for command in own if command not in leaving), key=lambda command: command.late)
        kept, available = set(), width
        for command in (*everywhere, *leaving, *others):
            if _width(command) <= available:
                kept.add(command.id)
                available -= _width(command)
        pieces: list[Piece] = []
        self._click_targets = []
        start = 0
        for command in (each for each in (*others, *leaving, *everywhere) if each.id in kept):
            pieces += [(" " + command.main_key, theme.TITLE), (" " + command.label + " ", theme.DIM)]
            self._click_targets.append((range(start, start + _width(command)), command.keys[0]))
            start += _width(command)
        return [strip(pieces, width)]

    def on_click(self, event: events.Click) -> None:
        for columns, key in self._click_targets:
            if event.x in columns:
                self.app.simulate_key(key)


def say(node: Widget, note: str) -> None:
    """Show a note in the foot of a widget's screen."""
    for bar in node.screen.query(KeyBar):
        bar.say(note)


def redraw_keys(node: Widget) -> None:
    """Draw the foot of a widget's screen anew, after what can be done has changed."""
    for bar in node.screen.query(KeyBar):
        bar.redraw()


def _width(command: Command) -> int:
    return cell_len(command.main_key) + cell_len(command.label) + 3
