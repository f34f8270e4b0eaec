"""A form for new runs, checked while it is filled in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.timer import Timer
from textual.widgets import Input

from accl.config.shipped import configs_folder
from accl.errors import AcclError
from accl.store.config_values import default_values
from accl.store.deadline import within
from accl.store.rundir import RunDir
from accl.text import duration, printable, typed
from tui import theme
from tui.commands import bindings, next_choice
from tui.form import Form
from tui.messages import OpenLaunch
from tui.services import Services
from tui.text import Piece, strip, wrapped
from tui.threads import in_daemon_thread
from tui.widgets.keybar import KeyBar, say
from tui.widgets.strip import StripWidget
from tui.widgets.suggest import WordSuggester
from tui.widgets.text import Text

if TYPE_CHECKING:
    from tui.draft import Draft

TYPED_S = 0.15  # who types on sooner has not finished
DRAFT_DEADLINE_S = 30.0
START_DEADLINE_S = 600.0  # a model may have to be fetched
WAYS = ("now", "in the queue")


class Field(Input):
    """A field of the form; what is typed or pasted is made printable.

    Args:
        choices: what it is often filled with, or what ``words`` in it may be completed to.
        suggested: whether what is typed is completed by one of them.
    """

    BINDINGS = bindings("launch")

    def __init__(
        self,
        value: str,
        choices: Sequence[str],
        placeholder: str = "",
        *,
        words: bool = False,
        suggested: bool = True,
        id: str,
    ) -> None:
        suggester = WordSuggester(lambda: self.choices) if suggested else None
        super().__init__(value, compact=True, placeholder=placeholder, suggester=suggester, id=id)
        self.choices, self.words = choices, words
        self._begun = ""  # what was typed of the word that another choice replaces

    def validate_value(self, value: str) -> str:
        return printable(value)

    @property
    def begun(self) -> str:
        """Text typed of the last word, before another choice took its place."""
        word = self.value.rpartition(" ")[2]
        return self._begun if word in self.choices else word

    def fitting(self) -> list[str]:
        """Return the choices that contain what was typed of the last word."""
        return [choice for choice in self.choices if self.begun.partition("=")[0] in choice]

    def action_other(self, step: int) -> None:
        """Take the next choice; for a word that is begun, the next key that contains it."""
        if not self.words:
            choices = self.choices[::step]
            self.value = next_choice(choices, self.value) if self.value in choices else choices[0]
        else:
            fitting, begun = self.fitting()[::step], self.begun
            if not fitting:
                say(self, f"no key contains {begun}")
                return
            before, blank, word = self.value.rpartition(" ")
            self._begun = begun
            self.value = before + blank + (next_choice(fitting, word) if word in fitting else fitting[0])
        self.cursor_position = len(self.value)


class Way(StripWidget, can_focus=True):
    """Whether a run starts now, or waits for its turn."""

    BINDINGS = bindings("launch")
    value = WAYS[0]
    many = False  # whether there are several runs, which always wait

    def show(self, many: bool) -> None:
        self.many = many
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if self.many:
            return [strip([(" in the queue, one after the other", theme.PLAIN)], width)]
        chosen = theme.CURSOR + Style(bold=True) if self.has_focus else theme.BOLD
        return [strip([(f" {way} ", chosen if way == self.value else theme.DIM) for way in WAYS], width)]

    def action_other(self, step: int) -> None:
        self.value = next_choice(WAYS, self.value)
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        if event.x < sum(len(way) + 2 for way in WAYS):
            self.value = WAYS[event.x > len(WAYS[0]) + 1]
            self.redraw()


class Label(Text):
    """A word beside a field."""

    def __init__(self, words: str, classes: str = "label") -> None:
        super().__init__(classes=classes)
        self.content = [[(words, theme.DIM)]]


class LaunchScreen(ModalScreen[None]):
    """New runs: what is filled in is resolved, and shown as the difference that it makes."""

    def __init__(self, services: Services, message: OpenLaunch) -> None:
        super().__init__()
        self.services, self.like, self.summaries = services, message.like, message.summaries
        self.machine = message.machine
        self._typed: Timer | None = None  # runs until what is typed is checked
        self._checked: Form | None = None  # the form as it was checked last
        self._starting = False

    @property
    def pending(self) -> str:
        return "what is filled in to be checked" if self._typed or self._checked != self.form else ""

    def compose(self) -> ComposeResult:
        recipes, profiles = _shipped("recipes"), _shipped("profiles")
        newest = next((each.setup.profile for each in self.summaries if each.setup), "")
        profile = newest if newest in profiles else ""
        seed = f"{default_values()['train.seed']:.0f}"
        with Vertical(id="launch"):
            yield Text(id="launch-title")
            if self.like is None:
                yield from _row("recipe", Field("full", recipes, "name or path", id="recipe"), recipes)
                yield from _row("profile", Field(profile, profiles, "the default", id="profile"), profiles)
            yield from _row(
                "seeds", Field("", [seed, "1,2,3", "1,2,3,4,5"], "its own; or 1,2,3", suggested=False, id="seeds")
            )
            keys = [f"{key}=" for key in default_values()]
            yield from _row(
                "changes", Field("", keys, "none; or optim.lr=5e-5 train.epochs=3", words=True, id="changes")
            )
            yield Text(id="launch-about")
            yield from _row("start", Way(id="way"))
            yield Text(id="launch-told")
            yield KeyBar("launch")

    def on_mount(self) -> None:
        title = "New runs" if self.like is None else "New runs like"
        like = self.like.id if self.like else ""
        self.query_one("#launch-title", Text).show(
            [(title, theme.TITLE), (f" {like}", theme.BOLD), ("  " + " · ".join(self.machine), theme.DIM)]
        )
        self.query(Field).last().focus()
        self._check_form()

    @property
    def form(self) -> Form:
        """The values that are filled in."""
        values = {field.id: field.value.strip() for field in self.query(Field)}
        queued = self.query_one(Way).value != WAYS[0]
        return Form(**values, queued=queued, like=self.like)  # type: ignore[arg-type]

    # Judging it.

    @on(Input.Changed)
    def _has_typed(self) -> None:
        if self._typed is not None:
            self._typed.stop()
        self._typed = self.set_timer(TYPED_S, self._check_form)

    def _check_form(self) -> None:
        self._typed = None
        self.run_worker(self._checking(self.form), group="check", exclusive=True)

    async def _checking(self, form: Form) -> None:
        def check() -> tuple[Draft | AcclError, str]:
            from tui.draft import about, draft

            words = about(form.changes)
            try:
                return draft(self.services.root, form, self.summaries), words
            except AcclError as error:
                return error, words

        words = ""
        try:
            found, words = await in_daemon_thread(lambda: within(DRAFT_DEADLINE_S, check))
        except AcclError as late:
            found = late
        self._checked = form
        changes = self.query_one("#changes", Field)
        keys = "" if "=" in changes.begun or not changes.begun else "  ".join(changes.fitting()).replace("=", "")
        self.query_one("#launch-about", Text).show([(words or keys, theme.DIM)])
        self._show(found)

    def _show(self, found: Draft | AcclError) -> None:
        told = self.query_one("#launch-told", Text)
        if isinstance(found, AcclError):
            told.show([], *([(line, theme.ERROR)] for line in wrapped(str(found), told.size.width)))
            return
        self.query_one(Way).show(len(found.members) > 1)
        told.show([], *described(found, self.like))

    # Starting it.

    def action_start(self) -> None:
        if not self._starting:
            self._starting = True
            # A worker of the app: leaving the form does not undo what was asked for.
            self.app.run_worker(self._start(self.form), group="asked")

    async def _start(self, form: Form) -> None:
        def start() -> list[RunDir]:
            from tui.draft import start

            return start(self.services.root, form)

        self.query_one("#launch-told", Text).show([], [("checking its data and model …", theme.MARK)])
        try:
            runs = await in_daemon_thread(lambda: within(START_DEADLINE_S, start))
        except AcclError as error:
            self._starting = False
            if self.is_attached:
                self._show(error)
            else:
                self.app.notify(str(error), title="Not started", severity="error")
            return
        self.services.watcher.look_again()
        queued = form.queued or len(runs) > 1
        name = runs[0].id if len(runs) == 1 else f"{len(runs)} runs"
        words = (
            "They start one after the other, also when the app is left."
            if queued
            else "It trains on, also when the app is left."
        )
        self.app.notify(words, title=f"{'Queued' if queued else 'Started'}: {name}")
        if self.is_current:
            self.dismiss()


def described(draft: Draft, like: RunDir | None) -> list[list[Piece]]:
    """Return lines that say what would be done, and how it differs from the recipe or run that it begins with."""
    from accl.launch.plan import Action

    config, count = draft.config, len(draft.members)
    seeds = ", ".join(str(member.config.train.seed) for member in draft.members)
    one = f"1 run of {config.recipe} ({config.profile}), seed {seeds}"
    first = one if count == 1 else f"{count} runs of {config.recipe} ({config.profile}), seeds {seeds}"
    time = f"about {duration(draft.seconds)}" if math.isfinite(draft.seconds) else "time unknown"
    lines: list[list[Piece]] = [[(first, theme.BOLD), (f" · {time}", theme.PLAIN)]]
    if draft.experiment:
        words = {Action.KEEP: "kept", Action.WAIT: "waited for", Action.RESUME: "resumed"}
        actions = [member.action for member in draft.members]
        known = [f"{actions.count(action)} {word}" for action, word in words.items() if action in actions]
        lines.append(
            [(f"experiment {draft.experiment}", theme.PLAIN), ("".join(f" · {each}" for each in known), theme.MARK)]
        )
    lines += [[(note, theme.MARK)] for note in draft.notes]
    base = like.id if like else f"{config.recipe} ({config.profile})"
    if not draft.changed:
        return [*lines, [], [(f"as {base}", theme.DIM)]]
    width = max(map(len, draft.changed))
    changes = [
        [(f"  {key:<{width}}  ", theme.PLAIN), (f"{typed(before)} → ", theme.DIM), (typed(now), theme.BOLD)]
        for key, (before, now) in draft.changed.items()
    ]
    return [*lines, [], [(f"differs from {base} in", theme.DIM)], *changes]


def _shipped(kind: str) -> list[str]:
    """Return the names of the recipes or profiles that come with accl."""
    return sorted(path.stem for path in (configs_folder() / kind).glob("*.yaml"))


def _row(label: str, field: Field | Way, choices: Sequence[str] = ()) -> ComposeResult:
    """Make a line of the form; of many choices, which are said beside it, the terminal shows those that fit."""
    with Horizontal():
        yield Label(label)
        yield field
        if choices:
            yield Label("  ".join(choices), classes="choices")
