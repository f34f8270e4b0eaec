"""The commands of the app, in one list from which bindings, foot, help and palette are made.

The keys follow W&B LEET where it has the same command. Every binding carries the id of its command, by which Textual
lets a keymap move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import Screen

from tui.command import Command, charts, keeping_order, navigation, processes
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
    "queue": "The queue",
    "lists": "Lists and tables",
    "grid": "The confusion grid",
    "filter": "While typing a filter",
    "palette": "The list of commands",
    "confirm": "Before it is done",
    "prompt": "While typing tags, a note or a name",
    "launch": "New runs",
    "help": "Help",
    "everywhere": "Everywhere",
}


def _has_entry(runs_screen: Any) -> bool:
    return runs_screen.entry is not None


# When commands can be done, by an attribute of their node, and what their keys say otherwise.
CHARTS_SHOWN = attrgetter("shows_charts"), "the charts are not shown: tab brings them"
SEARCHED = attrgetter("search"), "type / and what to find first"
RANKED = attrgetter("ranking"), "there are no pairs yet"
EARLIER = attrgetter("has_earlier"), "there is no earlier matrix"
LATER = attrgetter("has_later"), "this is the newest matrix"
MOMENTS = attrgetter("has_moments"), "there is one matrix only"
BASES = attrgetter("has_base"), "there is no other run of these tasks to compare with"
KINDS = attrgetter("has_kinds"), "there are no matrices of another kind"
PAIRS_SHOWN = attrgetter("shows_list"), "the list of pairs is hidden: it needs 110 columns, and ] not to hide it"
ANSWERS = attrgetter("has_arms"), "there are no other answers to put beside"
BOTH_SHOWN = attrgetter("shows_both"), "there is room for one of them: z changes between list and question"
EVENTS_SHOWN = attrgetter("shows_events"), "the events are hidden: they need 18 lines, and ] not to hide them"
OTHER_ARMS = attrgetter("has_other_arms"), "there is no other arm"
SCROLLS = attrgetter("scrolls"), "long lines are wrapped: w scrolls them"
WAITING = attrgetter("has_waiting"), "nothing waits"
WAITS = attrgetter("waits"), "it does not wait: it trains already, or nothing is there"


COMMANDS: tuple[Command, ...] = (
    Command("runs.open", "open the highlighted run, or fold its group", ("enter",), "open", "open", _has_entry),
    Command("runs.select", "select the run or group, and step on", ("space",), "select", "select", _has_entry),
    Command("runs.select_all", "select all runs shown, or none", ("ctrl+a",), "select_all"),
    Command("runs.compare", "compare the selected runs", ("c",), "compare", "compare"),
    Command("runs.new", "new runs: a form with recipe, profile, seeds and changes", ("n",), "launch(False)", "new"),
    *processes("runs"),
    Command("runs.filter", "only runs a query finds: words, val>30%, lr>=1e-4", ("f",), "filter", "filter"),
    Command("runs.sort", "sort by the next column, or click its head", ("o",), "sort", "sort"),
    Command("runs.order", "sort by a config key or metric that you type", ("O",), "order"),
    Command("runs.queue", "the queue: what trains, and what waits for its turn", ("Q",), "queue", "queue", late=True),
    *keeping_order("runs"),
    Command("runs.back", "forget the filter, then the selection", ("escape",), "back"),
    Command("groups.group", "group by arm, profile, experiment, state or nothing", ("g",), "screen.group", "group"),
    Command("groups.fold", "fold the group", ("left", "h"), "screen.fold(True)"),
    Command("groups.unfold", "unfold the group", ("right", "l"), "screen.fold(False)"),
    Command("run.health", "pane: health, everything over time", ("1",), "pane('health')"),
    Command("run.curriculum", "pane: curriculum, the task weights", ("2",), "pane('curriculum')"),
    Command("run.confusion", "pane: confusion between tasks", ("3",), "pane('confusion')"),
    Command("run.tasks", "pane: accuracy of each task", ("4",), "pane('tasks')"),
    Command("run.questions", "pane: questions and answers", ("5",), "pane('questions')"),
    Command("run.log", "pane: the whole console log, and the events", ("6",), "pane('log')"),
    Command("run.machine", "pane: load of the machine, configuration, provenance", ("7",), "pane('machine')"),
    *processes("run", taken=("r", "R", "N")),
    *keeping_order("run", taken=("r", "R", "N")),
    Command("run.back", "back to the runs", ("escape",), "back", "back"),
    Command(
        "health.swap", "what was going on at the cursor: in place of the charts, or hidden", ("tab",), "swap", "list"
    ),
    *charts("health"),
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
    Command("confusion.base", "difference to the next run, or to the moment shown", ("b",), "base", "", *BASES),
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
    *charts(
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
    *charts("compare", taken=("up", "down", "home", "end", "pageup", "pagedown", "w", "s"), when=CHARTS_SHOWN),
    Command("compare.back", "back to all charts, then no cursor, then to the runs", ("escape",), "back", "back"),
    Command("queue.earlier", "let it start earlier", ("K", "shift+up"), "move_run(-1)", "earlier", *WAITS),
    Command("queue.later", "let it start later", ("J", "shift+down"), "move_run(1)", "later", *WAITS),
    Command("queue.first", "let it start first", ("F", "shift+home"), "first", "first", *WAITS),
    Command("queue.pause", "keep it from being started, or not any more", ("p",), "pause(False)", "pause", *WAITS),
    Command("queue.pause_all", "pause all that wait, or none", ("P",), "pause(True)", "pause all", *WAITING),
    Command("queue.cancel", "take it out of the queue; asks first", ("t", "D"), "cancel", "cancel", *WAITS),
    Command(
        "queue.open", "open the run", ("enter",), "open", "open", attrgetter("has_runs"), "nothing trains or waits"
    ),
    Command("queue.back", "back to the runs", ("escape",), "screen.dismiss", "back"),
    *navigation("lists", "one line"),
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
    Command("prompt.keep", "save what is typed", ("enter",), "submit", "save"),
    Command("prompt.complete", "complete the word", ("tab",), "complete", "complete"),
    Command("prompt.drop", "leave it as it was", ("escape",), "screen.dismiss", "cancel"),
    Command("launch.start", "start, or queue, what is described", ("enter",), "screen.start", "start"),
    Command("launch.next", "next field", ("tab",), "app.focus_next", "field"),
    Command("launch.previous", "field before", ("shift+tab",), "app.focus_previous"),
    Command(
        "launch.other",
        "another recipe, profile or way to start; a key for what is typed",
        ("down",),
        "other(1)",
        "other",
    ),
    Command("launch.other_back", "the one before", ("up",), "other(-1)"),
    Command("launch.close", "start nothing", ("escape",), "screen.dismiss", "close"),
    *navigation("help", "scroll"),
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
