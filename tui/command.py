"""A command of the app, and those that several scopes have alike: moving in lists, charts, what is done with runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from textual.keys import format_key


def always(_: Any) -> bool:
    """Return True, of any node."""
    return True


@dataclass(frozen=True)
class Command:
    """Something that the user can do.

    Attributes:
        id: its scope, which is a key of `SCOPES`, a dot, and a name.
        title: text for help and palette.
        keys: Textual key names, the main one first; a command without is in the palette alone.
        run: Textual action of the node that has the scope.
        label: one or two words for the foot; empty keeps the command out of it.
        enabled: whether the node can do it now; foot and palette leave out what cannot be done.
        otherwise: what its key says while it cannot be done.
        priority: whether the key also works while text is being typed.
        late: whether the foot has it only where there is room after all others.
    """

    id: str
    title: str
    keys: tuple[str, ...]
    run: str
    label: str = ""
    enabled: Callable[[Any], bool] = always
    otherwise: str = "there is nothing here to do it with"
    priority: bool = False
    late: bool = False

    @property
    def scope(self) -> str:
        return self.id.partition(".")[0]

    @property
    def keys_display(self) -> str:
        """All keys, as the help prints them."""
        return " ".join(map(_display_name, self.keys))

    @property
    def main_key(self) -> str:
        """First key, as the foot prints it."""
        return _display_name(self.keys[0]) if self.keys else ""


def _display_name(key: str) -> str:
    return key if key == "enter" else format_key(key).replace("ctrl+", "^")


def navigation(scope: str, movement: str, *page_keys: str) -> tuple[Command, ...]:
    """Make the commands that move in a list; ``page_keys``: more keys for a page down, and for one up."""
    down, up = page_keys[:1], page_keys[1:]
    return (
        Command(f"{scope}.up", f"{movement} up", ("up", "k"), "move(-1)"),
        Command(f"{scope}.down", f"{movement} down", ("down", "j"), "move(1)"),
        Command(f"{scope}.page_up", "a page up", ("pageup", "ctrl+b", *up), "page(-1)"),
        Command(f"{scope}.page_down", "a page down", ("pagedown", "ctrl+f", *down), "page(1)"),
        Command(f"{scope}.first", "to the first", ("home", "g"), "edge(-1)"),
        Command(f"{scope}.last", "to the last", ("end", "G"), "edge(1)"),
    )


def charts(
    scope: str, taken: Collection[str] = (), when: tuple[Callable[[Any], bool], str] = (always, "")
) -> tuple[Command, ...]:
    """Make the commands of charts, without the keys that are ``taken`` by lists beside them."""

    def command(name: str, title: str, keys: tuple[str, ...], call: str, label: str = "") -> Command:
        free = tuple(key for key in keys if key not in taken)
        return Command(f"{scope}.{name}", title, free, f"charts({call})", label, *when)

    commands = (
        command("left", "cursor left", ("left",), "'move_cursor', -1"),
        command("right", "cursor right: the values there beside the curves", ("right",), "'move_cursor', 1", "cursor"),
        command("far_left", "cursor ten columns left", ("shift+left",), "'move_cursor', -10"),
        command("far_right", "cursor ten columns right", ("shift+right",), "'move_cursor', 10"),
        command("first", "cursor to the first visible step", ("home",), "'edge', -1"),
        command("last", "cursor to the last visible step", ("end",), "'edge', 1"),
        command("jump", "cursor to the step you type; +N and -N are relative", ("at",), "'open_jump'", "jump"),
        command("zoom_in", "zoom in, around the cursor", ("plus", "equals_sign"), "'zoom', 1", "zoom"),
        command("zoom_out", "zoom out", ("minus",), "'zoom', -1"),
        command("zoom_all", "the whole x axis", ("0",), "'zoom', 0"),
        command("pan_left", "pan left", ("less_than_sign",), "'pan', -0.5"),
        command("pan_right", "pan right", ("greater_than_sign",), "'pan', 0.5"),
        command("axis", "x axis: step, epoch, questions or time", ("x",), "'next_axis'", "x axis"),
        command("log", "y axis: linear or logarithmic", ("y",), "'toggle_log'", "log y"),
        command("raw", "every value, or the median with a band from 10 to 90 %", ("r",), "'toggle_raw'", "raw"),
        command(
            "filter",
            "only charts whose title or metric match",
            ("slash", "m"),
            "'open_filter'",
            "metrics",
        ),
        command("full", "the focused chart alone, or all", ("z",), "'toggle_full'", "full"),
        command("above", "focus the chart above", ("up", "w"), "'focus_chart', 0, -1"),
        command("below", "focus the chart below", ("down", "s"), "'focus_chart', 0, 1"),
        command("beside_left", "focus the chart to the left", ("a",), "'focus_chart', -1, 0"),
        command("beside_right", "focus the chart to the right", ("d",), "'focus_chart', 1, 0"),
        command("next_page", "next page of charts", ("pagedown", "n"), "'turn', 1"),
        command("previous_page", "previous page of charts", ("pageup", "N"), "'turn', -1"),
    )
    return tuple(command for command in commands if command.keys)


_SOME = attrgetter("has_targets"), "there is no run here"


def processes(scope: str, taken: Collection[str] = ()) -> tuple[Command, ...]:
    """Make the commands on the processes of runs, without the keys that are ``taken`` by what a run shows."""
    stoppable = attrgetter("can_stop"), "nothing of it is active"
    resumable = attrgetter("can_resume"), "only what has stopped, failed or crashed can go on"
    undo = "undo the last deletion, or change of tags, note or name"
    undoable = attrgetter("can_undo"), "nothing was done since the app was opened that could be undone"
    return (
        Command(f"{scope}.stop", "stop it; asks first", ("t",), "stop", "stop", *stoppable),
        Command(
            f"{scope}.resume",
            "go on with what has stopped, from its last checkpoint",
            _free(("r", "C"), taken),
            "resume",
            "resume",
            *resumable,
        ),
        Command(
            f"{scope}.enqueue", "let it go on when its turn comes, in the queue", ("W",), "enqueue", "", *resumable
        ),
        Command(f"{scope}.undo", undo, ("u",), "undo", "undo", *undoable),
    )


def keeping_order(scope: str, taken: Collection[str] = ()) -> tuple[Command, ...]:
    """Make the commands that keep order among runs."""
    one = attrgetter("has_one_target"), "a name is for one run"
    single = attrgetter("has_one_target"), "new runs are like one other"
    deletable = attrgetter("can_delete"), "an active run cannot be deleted: t stops it"
    again = "train the same again, as a new run; asks first"
    commands = (
        Command(f"{scope}.like", "new runs like this one, with changes", ("L",), "launch(True)", "like", *single),
        Command(f"{scope}.restart", again, _free(("R", "A"), taken), "restart", "again", *_SOME),
        Command(f"{scope}.tag", "add tags, or remove them with -tag", ("T",), "tag", "tag", *_SOME),
        Command(f"{scope}.note", "write a note", _free(("N", "M"), taken), "note", "note", *_SOME),
        Command(f"{scope}.delete", "move it to the trash; asks first", ("D", "delete"), "delete", "delete", *deletable),
        Command(f"{scope}.rename", "give it a name", ("E", "f2"), "rename", "name", *one),
    )
    return tuple(replace(command, late=True) for command in commands)


def _free(keys: tuple[str, ...], taken: Collection[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in taken)
