"""Messages by which screens ask for others: the app alone knows them all and opens them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from textual.message import Message

from accl.store.rundir import RunDir
from accl.store.summary import Summary


@dataclass
class OpenRun(Message):
    """Open a run, in the pane of this name or in the one that was shown last; there with the questions of a query."""

    run: RunDir
    pane: str | None = None
    questions: str = ""


@dataclass
class ShowQuestions(Message):
    """Show the questions of the run on the screen that a query finds."""

    query: str


@dataclass
class ShowStep(Message):
    """Put the cursor of the charts of the screen at a step."""

    step: float


@dataclass
class OpenCompare(Message):
    """Compare runs; the first is the reference."""

    runs: list[RunDir]


@dataclass
class OpenLaunch(Message):
    """Fill in a form for new runs.

    Attributes:
        like: run whose configuration they begin with, in place of a recipe.
        summaries: runs that were trained before, the newest first.
        machine: texts about its load.
    """

    like: RunDir | None = None
    summaries: Sequence[Summary] = ()
    machine: Sequence[str] = ()


@dataclass
class OpenQueue(Message):
    """Show what trains and what waits."""


@dataclass
class OpenHelp(Message):
    """Show all keys, those of the screen on top first."""


@dataclass
class Ask(Message):
    """Ask before something is done.

    Attributes:
        question: one line.
        subject: to what it is done.
        consequences: lines that say what follows.
        then: what is done after a yes; the app runs it, also when the screen that asked is left meanwhile.
    """

    question: str
    subject: str
    consequences: tuple[str, ...]
    then: Callable[[], Awaitable[None]]


@dataclass
class Prompt(Message):
    """Ask for a line of text.

    Attributes:
        title: one line.
        subject: what the text is about.
        explanation: lines that say what may be typed.
        then: what is done with another text than ``value``; the app runs it, as in `Ask`.
        value: text to begin with.
        words: what a word may be completed to.
    """

    title: str
    subject: str
    explanation: tuple[str, ...]
    then: Callable[[str], Awaitable[None]]
    value: str = ""
    words: Sequence[str] = ()
