"""The key table, from which bindings, the key bar and the help screen are made.

The keys follow W&B LEET, so that its users need no relearning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from textual.binding import Binding, BindingType
from textual.keys import format_key

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Key:
    """One entry of the key table.

    Attributes:
        keys: Textual key names, the main one first.
        action: action of the widget or screen.
        label: one or two words for the key bar; empty keeps the key out of it.
        description: text for the help screen.
        priority: whether the key also works while text is being typed.
    """

    keys: tuple[str, ...]
    action: str
    label: str
    description: str
    priority: bool = False

    @property
    def display(self) -> str:
        """All keys, as the help screen prints them."""
        return " ".join(map(_display_name, self.keys))

    @property
    def main_key(self) -> str:
        """First key, as the key bar prints it."""
        return _display_name(self.keys[0])


def _display_name(key: str) -> str:
    return key if key == "enter" else format_key(key).replace("ctrl+", "^")


def _navigation(movement: str) -> tuple[Key, ...]:
    return (
        Key(("up", "k"), "move(-1)", "", f"{movement} up"),
        Key(("down", "j"), "move(1)", "", f"{movement} down"),
        Key(("pageup",), "page(-1)", "", "a page up"),
        Key(("pagedown",), "page(1)", "", "a page down"),
        Key(("home", "g"), "edge(-1)", "", "to the first"),
        Key(("end", "G"), "edge(1)", "", "to the last"),
    )


_CHARTS = (
    Key(("left",), "charts('move_cursor', -1)", "", "cursor left"),
    Key(("right",), "charts('move_cursor', 1)", "cursor", "cursor right: the values there stand beside the curves"),
    Key(("shift+left",), "charts('move_cursor', -10)", "", "cursor ten columns left"),
    Key(("shift+right",), "charts('move_cursor', 10)", "", "cursor ten columns right"),
    Key(("home",), "charts('edge', -1)", "", "cursor to the first visible step"),
    Key(("end",), "charts('edge', 1)", "", "cursor to the last visible step"),
    Key(("at",), "charts('open_jump')", "jump", "cursor to the step you type; +N and -N are relative"),
    Key(("plus", "equals_sign"), "charts('zoom', 1)", "zoom", "zoom in, around the cursor"),
    Key(("minus",), "charts('zoom', -1)", "", "zoom out"),
    Key(("0",), "charts('zoom', 0)", "", "the whole x axis"),
    Key(("less_than_sign",), "charts('pan', -0.5)", "", "pan left"),
    Key(("greater_than_sign",), "charts('pan', 0.5)", "", "pan right"),
    Key(("x",), "charts('next_axis')", "x axis", "x axis: step, epoch, questions or time"),
    Key(("y",), "charts('toggle_log')", "log y", "y axis: linear or logarithmic"),
    Key(("r",), "charts('toggle_raw')", "raw", "every value, or the median with a band from 10 to 90 %"),
    Key(("slash", "m"), "charts('open_filter')", "metrics", "only charts whose title or metric match what you type"),
    Key(("z",), "charts('toggle_full')", "full", "the focused chart alone, or all"),
    Key(("up", "w"), "charts('focus_chart', 0, -1)", "", "focus the chart above"),
    Key(("down", "s"), "charts('focus_chart', 0, 1)", "", "focus the chart below"),
    Key(("a",), "charts('focus_chart', -1, 0)", "", "focus the chart to the left"),
    Key(("d",), "charts('focus_chart', 1, 0)", "", "focus the chart to the right"),
    Key(("pagedown", "n"), "charts('turn', 1)", "", "next page of charts"),
    Key(("pageup", "N"), "charts('turn', -1)", "", "previous page of charts"),
)

KEYS: dict[str, tuple[Key, ...]] = {
    "everywhere": (
        Key(("question_mark",), "help", "help", "this page"),
        Key(("q", "ctrl+q"), "quit", "quit", "leave; training goes on"),
        Key(("ctrl+c",), "quit", "", "leave, also while typing; training goes on", priority=True),
    ),
    "runs": (
        Key(("enter",), "open", "open", "open the highlighted run"),
        Key(("space",), "select", "select", "select the highlighted run, or not any more"),
        Key(("c",), "compare", "compare", "compare the selected runs"),
        Key(("f",), "filter", "filter", "show only runs that contain all the words you type"),
        Key(("t",), "stop", "stop", "stop the highlighted run; asks first"),
        Key(("escape",), "back", "", "forget the filter, then the selection"),
    ),
    "lists": _navigation("one line"),
    "run": (
        Key(("1",), "pane('curves')", "", "pane: curves"),
        Key(("2",), "pane('curriculum')", "", "pane: curriculum, the task weights"),
        Key(("3",), "pane('confusion')", "", "pane: confusion between tasks"),
        Key(("4",), "pane('tasks')", "", "pane: accuracy of each task, events and console"),
        Key(("t",), "stop", "stop", "stop this run; asks first"),
        Key(("escape",), "back", "back", "back to the runs"),
    ),
    "curves": _CHARTS,
    "curriculum": (Key(("o",), "order", "order", "order: weight, category, name"),),
    "confusion": (
        Key(("up", "k"), "move(-1, 0)", "", "cursor up"),
        Key(("down", "j"), "move(1, 0)", "", "cursor down"),
        Key(("left", "h"), "move(0, -1)", "", "cursor left"),
        Key(("right", "l"), "move(0, 1)", "", "cursor right"),
        Key(("pageup",), "move(-10, 0)", "", "ten rows up"),
        Key(("pagedown",), "move(10, 0)", "", "ten rows down"),
        Key(("home",), "edge(-1)", "", "to the first column"),
        Key(("end",), "edge(1)", "", "to the last column"),
    ),
    "confusion pane": (
        Key(("enter",), "jump", "go to pair", "in the list: put the cursor on the highlighted pair"),
        Key(("y",), "scale", "log", "colour scale: linear or logarithmic"),
        Key(("o",), "order", "order", "order of the tasks: category or name"),
        Key(("z",), "zoom", "zoom", "size of a cell: fitting, small, medium, with numbers"),
        Key(("tab", "shift+tab"), "app.focus_next", "list", "between the grid and the list of pairs"),
        Key(("v",), "kind", "matrix", "which matrix: of the training stream, of the test questions"),
    ),
    "tasks": (
        Key(("o",), "order", "order", "order: accuracy, its reverse, questions, name, category"),
        Key(("tab", "shift+tab"), "app.focus_next", "log", "between the tasks and the log"),
        Key(("v",), "split", "split", "which evaluation: validation, test"),
    ),
    "compare": (
        *_CHARTS,
        Key(("l",), "seeds", "seeds", "the seeds of an arm: a median with a band, or a line each"),
        Key(("tab", "shift+tab"), "app.focus_next", "part", "between the curves and the table"),
        Key(("escape",), "back", "back", "back to all charts, then no cursor, then to the runs"),
    ),
    "confirm": (
        Key(("y",), "dismiss(True)", "yes", "yes, stop it"),
        Key(("n", "escape"), "dismiss(False)", "no", "no, leave it running"),
    ),
    "filter": (
        Key(("enter",), "accept", "keep", "keep the filter and go on"),
        Key(("escape",), "clear", "drop", "drop the filter"),
    ),
    "help": (*_navigation("scroll"), Key(("escape", "question_mark"), "screen.dismiss", "close", "close this page")),
}


def bindings(*scopes: str) -> list[BindingType]:
    """Return the Textual bindings of the scopes."""
    return [
        Binding(",".join(key.keys), key.action, key.description, show=False, priority=key.priority)
        for scope in scopes
        for key in KEYS[scope]
    ]


def next_choice(choices: Sequence[Choice], current: Choice) -> Choice:
    """Return the choice after the current one, cyclically: the effect of a key such as o or z."""
    return choices[(choices.index(current) + 1) % len(choices)]
