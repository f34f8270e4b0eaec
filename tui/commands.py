"""The commands of the app, in one list from which bindings, foot, help and palette are made.

The keys follow W&B LEET where it has the same command. Every binding carries the id of its command, by which Textual
lets a keymap move it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar

from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.keys import format_key
from textual.screen import Screen

from tui.palettes import PALETTES

Choice = TypeVar("Choice")

# What has keys of its own, with its title in the help.
SCOPES = {
    "runs": "Runs",
    "groups": "Runs, in groups",
    "run": "One run",
    "health": "1 Health",
    "curriculum": "2 Curriculum",
    "confusion": "3 Confusion",
    "tasks": "4 Tasks",
    "questions": "5 Questions",
    "log": "6 Log",
    "machine": "7 Machine and configuration",
    "compare": "Compare",
    "lists": "Lists and tables",
    "grid": "The confusion grid",
    "filter": "While typing a filter",
    "palette": "The list of commands",
    "confirm": "Before it is done",
    "prompt": "While typing tags, a note or a name",
    "help": "Help",
    "everywhere": "Everywhere",
}


def _always(_: Any) -> bool:
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
    enabled: Callable[[Any], bool] = _always
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


def _navigation(scope: str, movement: str, *page_keys: str) -> tuple[Command, ...]:
    down, up = page_keys[:1], page_keys[1:]
    return (
        Command(f"{scope}.up", f"{movement} up", ("up", "k"), "move(-1)"),
        Command(f"{scope}.down", f"{movement} down", ("down", "j"), "move(1)"),
        Command(f"{scope}.page_up", "a page up", ("pageup", "ctrl+b", *up), "page(-1)"),
        Command(f"{scope}.page_down", "a page down", ("pagedown", "ctrl+f", *down), "page(1)"),
        Command(f"{scope}.first", "to the first", ("home", "g"), "edge(-1)"),
        Command(f"{scope}.last", "to the last", ("end", "G"), "edge(1)"),
    )


def _charts(
    scope: str, taken: Collection[str] = (), when: tuple[Callable[[Any], bool], str] = (_always, "")
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


def _life(scope: str, taken: Collection[str] = ()) -> tuple[Command, ...]:
    """Make the commands on the processes of runs, without the keys that are ``taken`` by what a run shows."""
    stoppable = attrgetter("can_stop"), "nothing of it is active"
    resumable = attrgetter("can_resume"), "only what has stopped, failed or crashed can go on"
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
            f"{scope}.undo",
            "undo the last deletion, or change of tags, note or name",
            ("u",),
            "undo",
            "undo",
            *undoable,
        ),
    )


def _order(scope: str, taken: Collection[str] = ()) -> tuple[Command, ...]:
    """Make the commands that keep order among runs."""
    one = attrgetter("has_one_target"), "a name is for one run"
    deletable = attrgetter("can_delete"), "an active run cannot be deleted: t stops it"
    again = "train the same again, as a new run; asks first"
    commands = (
        Command(f"{scope}.restart", again, _free(("R", "A"), taken), "restart", "again", *_SOME),
        Command(f"{scope}.tag", "add tags, or remove them with -tag", ("T",), "tag", "tag", *_SOME),
        Command(f"{scope}.note", "write a note", _free(("N", "M"), taken), "note", "note", *_SOME),
        Command(f"{scope}.delete", "move it to the trash; asks first", ("D", "delete"), "delete", "delete", *deletable),
        Command(f"{scope}.rename", "give it a name", ("E", "f2"), "rename", "name", *one),
    )
    return tuple(replace(command, late=True) for command in commands)


def _free(keys: tuple[str, ...], taken: Collection[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in taken)


def _has_entry(runs_screen: Any) -> bool:
    return runs_screen.entry is not None


# When commands can be done, by an attribute of their node, and what their keys say otherwise.
CHARTS_SHOWN = attrgetter("shows_charts"), "the charts are not shown: tab brings them"
SEARCHED = attrgetter("search"), "type / and what to find first"
RANKED = attrgetter("ranking"), "there are no pairs yet"
EARLIER = attrgetter("has_earlier"), "there is no earlier matrix"
LATER = attrgetter("has_later"), "this is the newest matrix"
MOMENTS = attrgetter("has_moments"), "there is one matrix only"
KINDS = attrgetter("has_kinds"), "there are no matrices of another kind"
PAIRS_SHOWN = attrgetter("shows_list"), "the list of pairs is hidden: it needs 110 columns, and ] not to hide it"
ANSWERS = attrgetter("has_arms"), "there are no other answers to put beside"
BOTH_SHOWN = attrgetter("shows_both"), "there is room for one of them: z changes between list and question"
EVENTS_SHOWN = attrgetter("shows_events"), "the events are hidden: they need 18 lines, and ] not to hide them"
OTHER_ARMS = attrgetter("has_other_arms"), "there is no other arm"
SCROLLS = attrgetter("scrolls"), "long lines are wrapped: w scrolls them"


COMMANDS: tuple[Command, ...] = (
    Command("runs.open", "open the highlighted run, or fold its group", ("enter",), "open", "open", _has_entry),
    Command("runs.select", "select the run or group, and step on", ("space",), "select", "select", _has_entry),
    Command("runs.select_all", "select all runs shown, or none", ("ctrl+a",), "select_all"),
    Command("runs.compare", "compare the selected runs", ("c",), "compare", "compare"),
    *_life("runs"),
    Command("runs.filter", "only runs a query finds: words, val>30%, lr>=1e-4", ("f",), "filter", "filter"),
    Command("runs.sort", "sort by the next column, or click its head", ("o",), "sort", "sort"),
    Command("runs.order", "sort by a config key or metric that you type", ("O",), "order"),
    *_order("runs"),
    Command("runs.back", "forget the filter, then the selection", ("escape",), "back"),
    Command("groups.group", "group by arm, profile, state or nothing", ("g",), "screen.group", "group"),
    Command("groups.fold", "fold the group", ("left", "h"), "screen.fold(True)"),
    Command("groups.unfold", "unfold the group", ("right", "l"), "screen.fold(False)"),
    Command("run.health", "pane: health, everything over time", ("1",), "pane('health')"),
    Command("run.curriculum", "pane: curriculum, the task weights", ("2",), "pane('curriculum')"),
    Command("run.confusion", "pane: confusion between tasks", ("3",), "pane('confusion')"),
    Command("run.tasks", "pane: accuracy of each task", ("4",), "pane('tasks')"),
    Command("run.questions", "pane: questions and answers", ("5",), "pane('questions')"),
    Command("run.log", "pane: the whole console log, and the events", ("6",), "pane('log')"),
    Command("run.machine", "pane: load of the machine, configuration, provenance", ("7",), "pane('machine')"),
    *_life("run", taken=("r", "R", "N")),
    *_order("run", taken=("r", "R", "N")),
    Command("run.back", "back to the runs", ("escape",), "back", "back"),
    Command(
        "health.swap", "what was going on at the cursor: in place of the charts, or hidden", ("tab",), "swap", "list"
    ),
    *_charts("health"),
    Command("health.future", "x axis to the last step of the run, or to the newest", ("e",), "charts('toggle_future')"),
    Command("health.order", "order of the task weights: category or weight", ("o",), "order", "order"),
    Command("curriculum.order", "order: weight, category, name", ("o",), "order", "order"),
    Command(
        "confusion.jump", "the questions of the pair; in the list: put the cursor on it", ("enter",), "jump", "pair"
    ),
    Command("confusion.next_pair", "the next pair of the ranking", ("n",), "rank(1)", "next pair", *RANKED),
    Command("confusion.previous_pair", "the previous pair of the ranking", ("N",), "rank(-1)", "", *RANKED),
    Command("confusion.find", "to the row, and after a space the column, that you type", ("slash",), "find", "find"),
    Command("confusion.earlier", "an earlier matrix", ("comma",), "scrub(-1)", "", *EARLIER),
    Command("confusion.later", "a later matrix, at the end the newest", ("full_stop",), "scrub(1)", "later", *LATER),
    Command("confusion.play", "play through time, or pause", ("p",), "play", "play", *MOMENTS),
    Command("confusion.order", "order of the tasks: category, name or cluster", ("o",), "order", "order"),
    Command(
        "confusion.kind",
        "which matrix: of the training stream, of the test questions",
        ("v",),
        "kind",
        "matrix",
        *KINDS,
    ),
    Command(
        "confusion.difference",
        "below the diagonal: difference to a run, to a moment, none",
        ("d",),
        "difference",
        "difference",
    ),
    Command("confusion.base", "difference to the next run, or to the moment shown", ("b",), "base"),
    Command("confusion.rows", "each row divided by its sum, or not", ("R",), "rows", "rows to 1"),
    Command("confusion.scale", "colour scale: quantiles, linear or logarithmic", ("y",), "scale", "scale"),
    Command("confusion.zoom", "size of a cell: fitting, small, medium, with numbers", ("z",), "zoom", "zoom"),
    Command("confusion.numbers", "cells with numbers, or fitting", ("Z",), "numbers"),
    Command(
        "confusion.next",
        "between the grid and the list of pairs",
        ("tab", "shift+tab"),
        "app.focus_next",
        "list",
        *PAIRS_SHOWN,
    ),
    Command("tasks.questions", "the questions of this task that were answered wrong", ("enter",), "questions", "wrong"),
    Command("tasks.order", "sort by the next column, or click its head", ("o",), "order", "sort"),
    Command("tasks.reverse", "the other way round: worst first, or best", ("i",), "reverse", "reverse"),
    Command("questions.filter", "only questions that a query finds", ("slash", "f"), "filter", "filter"),
    Command("questions.full", "the question alone, or beside the list", ("enter", "z"), "full", "full"),
    Command("questions.order", "order: worst mistake, probability, task", ("o",), "order", "order"),
    Command("questions.split", "which questions: test, validation", ("v",), "split", "split"),
    Command("questions.beside", "answers of the next arm or seed beside these", ("b",), "beside", "beside", *ANSWERS),
    Command(
        "questions.next",
        "between the list and the question",
        ("tab", "shift+tab"),
        "app.focus_next",
        "question",
        *BOTH_SHOWN,
    ),
    Command("log.find", "find text in the whole log", ("slash",), "find", "find"),
    Command("log.next", "next line found", ("n",), "next(1)", "next", *SEARCHED),
    Command("log.previous", "previous line found", ("N",), "next(-1)", "", *SEARCHED),
    Command("log.step", "put the cursor of the charts at the step of the line", ("enter",), "step", "to its step"),
    Command("log.wrap", "wrap long lines, or scroll them", ("w",), "wrap", "wrap"),
    Command("log.left", "scroll to the left", ("left",), "sideways(-1)", "", *SCROLLS),
    Command("log.right", "scroll to the right", ("right",), "sideways(1)", "", *SCROLLS),
    Command(
        "log.other",
        "between the console and the events",
        ("tab", "shift+tab"),
        "app.focus_next",
        "events",
        *EVENTS_SHOWN,
    ),
    Command("machine.filter", "only keys that contain the text you type", ("slash",), "filter", "keys"),
    Command(
        "machine.different", "only what differs from the reference, or everything", ("d",), "different", "differences"
    ),
    Command("machine.reference", "another run as the reference", ("b",), "reference", "reference"),
    Command("machine.part", "between configuration, load and provenance", ("tab",), "part(1)", "part"),
    Command("machine.part_back", "the part before", ("shift+tab",), "part(-1)"),
    *_charts(
        "machine",
        taken=("up", "down", "home", "end", "pageup", "pagedown", "slash", "m", "d", "n", "N"),
        when=CHARTS_SHOWN,
    ),
    Command("compare.next", "next part: arms, charts, tasks, flips ...", ("tab",), "next_part(1)", "part"),
    Command("compare.previous", "previous part", ("shift+tab",), "next_part(-1)"),
    Command("compare.open", "open the run, or the questions of the flips", ("enter",), "open", "open"),
    Command("compare.reference", "compare with the highlighted arm", ("b",), "reference", "reference", *OTHER_ARMS),
    Command("compare.arm", "next arm, wherever the focus is", ("full_stop",), "other_arm(1)", "", *OTHER_ARMS),
    Command("compare.arm_back", "previous arm", ("comma",), "other_arm(-1)", "", *OTHER_ARMS),
    Command("compare.categories", "tasks or their categories", ("c",), "categories", "categories"),
    Command("compare.power", "seeds needed for an interval of ±1 point", ("w",), "part('power')", "seeds needed"),
    Command("compare.seeds", "the seeds of an arm: a median with a band, or a line each", ("l",), "seeds", "seeds"),
    *_charts("compare", taken=("up", "down", "home", "end", "pageup", "pagedown", "w", "s"), when=CHARTS_SHOWN),
    Command("compare.back", "back to all charts, then no cursor, then to the runs", ("escape",), "back", "back"),
    *_navigation("lists", "one line"),
    Command("grid.up", "cursor up", ("up", "k"), "move(-1, 0)"),
    Command("grid.down", "cursor down", ("down", "j"), "move(1, 0)"),
    Command("grid.left", "cursor left", ("left", "h"), "move(0, -1)"),
    Command("grid.right", "cursor right", ("right", "l"), "move(0, 1)"),
    Command("grid.page_up", "ten rows up", ("pageup", "ctrl+b"), "move(-10, 0)"),
    Command("grid.page_down", "ten rows down", ("pagedown", "ctrl+f"), "move(10, 0)"),
    Command("grid.first", "to the first column", ("home",), "edge(-1)"),
    Command("grid.last", "to the last column", ("end",), "edge(1)"),
    Command("filter.keep", "keep the filter and go on", ("enter",), "accept", "keep"),
    Command("filter.drop", "drop the filter", ("escape",), "clear", "drop"),
    Command("palette.run", "run the highlighted command", ("enter",), "accept", "run"),
    Command("palette.up", "one command up", ("up",), "move(-1)"),
    Command("palette.down", "one command down", ("down",), "move(1)"),
    Command("palette.close", "close the list", ("escape",), "screen.dismiss", "close"),
    Command("confirm.yes", "yes, do it", ("y",), "dismiss(True)", "yes"),
    Command("confirm.no", "no, leave it", ("n", "escape"), "dismiss(False)", "no"),
    Command("prompt.keep", "keep what is typed", ("enter",), "submit", "keep"),
    Command("prompt.complete", "complete the word", ("tab",), "complete", "complete"),
    Command("prompt.drop", "leave it as it was", ("escape",), "screen.dismiss", "drop"),
    *_navigation("help", "scroll"),
    Command("help.close", "close this page", ("escape",), "screen.dismiss", "close"),
    Command("everywhere.help", "the keys and what they do", ("question_mark", "f1"), "help", "help"),
    Command("everywhere.palette", "find a command by typing", ("colon", "ctrl+p"), "palette", "commands"),
    Command("everywhere.side", "hide or show what stands at the side", ("right_square_bracket",), "side"),
    *(Command(f"everywhere.{name}", f"colours: {name}", (), f"colours('{name}')") for name in PALETTES),
    Command("everywhere.reset", "forget how the screens were left", (), "reset_view"),
    Command("everywhere.quit", "leave; training goes on", ("q", "ctrl+q"), "quit", "quit"),
    Command("everywhere.leave", "leave, also while typing; training goes on", ("ctrl+c",), "quit", priority=True),
)
BY_ID = {command.id: command for command in COMMANDS}


def of_scope(scope: str) -> list[Command]:
    """Return the commands of a scope, in the order of the list."""
    return [command for command in COMMANDS if command.scope == scope]


def bindings(*scopes: str) -> list[BindingType]:
    """Return the Textual bindings of the scopes."""
    return [
        Binding(
            ",".join(command.keys), command.run, command.title, show=False, priority=command.priority, id=command.id
        )
        for scope in scopes
        for command in of_scope(scope)
        if command.keys
    ]


def held(node: DOMNode) -> set[str]:
    """Return the ids of the commands that a node has."""
    return {binding.id for binding in type(node).BINDINGS if isinstance(binding, Binding) and binding.id}


def refused(node: DOMNode, action: str) -> Command | None:
    """Return the command of a node behind an action, if it cannot be done now."""
    commands = (command for command in COMMANDS if command.run == action and command.id in held(node))
    return next((command for command in commands if not command.enabled(node)), None)


def present(screen: Screen[Any]) -> dict[str, DOMNode]:
    """Return the scopes in force on a screen as it is focused now, each with the node that has it."""
    actives = screen.active_bindings.values()
    nodes = {BY_ID[active.binding.id].scope: active.node for active in actives if active.binding.id in BY_ID}
    return {scope: nodes[scope] for scope in SCOPES if scope in nodes}


def next_choice(choices: Sequence[Choice], current: Choice) -> Choice:
    """Return the choice after the current one, cyclically: the effect of a key such as o or z."""
    return choices[(choices.index(current) + 1) % len(choices)]
