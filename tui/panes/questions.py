"""Pane 5: the questions of an evaluation that a query finds, each with its options and what the arms answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Container

from accl.errors import AcclError, BusyError, QueryError
from accl.store.answered import Answered
from accl.store.query import EVERYTHING, Query, parse
from accl.store.questions import SPLITS, Answer, Question
from accl.store.rundir import RunDir, Setup
from accl.store.schema import VALIDATION_STEP
from accl.store.vocabulary import QUESTIONS
from tui import theme
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.text import Piece
from tui.threads import in_daemon_thread
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar, redraw_keys
from tui.widgets.listing import Listing
from tui.widgets.questions import Column, QuestionDetail, QuestionList
from tui.widgets.text import Text

RETRY_S = 1.0
NONE = "nobody"  # in place of an arm


@dataclass(frozen=True)
class Wanted:
    """The questions that the pane shall show.

    Attributes:
        split, stamp: the evaluation; the stamp changes when its answers do.
        beside: name of the arm whose answers are shown beside the run's.
    """

    split: str
    stamp: tuple[object, ...]
    query: Query
    order: str
    beside: str


@dataclass(frozen=True)
class Found:
    """The questions found, and the answers beside them.

    Attributes:
        questions: in the order that was wanted.
        problem: why these are not the questions wanted, but those of before.
        setup: of the run beside.
        missing: why nothing is beside.
    """

    answered: Answered | None = None
    questions: Sequence[Question] = ()
    problem: str = ""
    beside: dict[str, Answer] = field(default_factory=dict)
    setup: Setup | None = None
    missing: str = ""


class QuestionsPane(Pane):
    """A list of questions with the one at the cursor."""

    needs = frozenset({"tasks"})
    scope = "questions"
    BINDINGS = bindings(scope)
    main_widget = QuestionList
    orders: ClassVar[dict[str, Callable[[Question], Any]]] = {
        "worst mistake": lambda question: question.by_mistake,
        "least on the right one": lambda question: question.probabilities[question.answer],
        "task": lambda question: (question.task, question.by_mistake),
    }
    settings: ClassVar = {"order": list(orders), "chosen_split": SPLITS, "filter_text": None, "beside": None}
    order = "worst mistake"
    chosen_split = ""
    filter_text = ""
    beside = "baseline"
    query_wanted = EVERYTHING  # the newest filter that could be understood
    filter_problem = ""
    found = Found()
    _done: Wanted | None = None
    _working = False

    def compose(self) -> ComposeResult:
        yield Text(id="found")
        yield Filter('words, or: wrong task:logic p>.8 gold:B flip:baseline pair:"a","b"', id="question-filter")
        with Container(id="questions-body"):
            yield QuestionList()
            yield QuestionDetail()

    @property
    def pending(self) -> str:
        return "" if self._done is not None and not self._working else "the questions"

    @property
    def split(self) -> str:
        """The chosen split; before one was chosen the test, once there was one."""
        tested = self.view is not None and "test" in self.view.task_accuracy
        return self.chosen_split or ("test" if tested else "validation")

    # What the keys can do now, see `tui.commands`.

    @property
    def has_arms(self) -> bool:
        return self.found.answered is not None and bool(self.found.answered.arms)

    @property
    def shows_both(self) -> bool:
        return not (self.has_class("-full") or any(map(self.screen.has_class, ("-tiny", "-short"))))

    def seek(self, query: str) -> None:
        """Show the questions that a query finds."""
        self.query_one(Filter).restore(query)
        self._filter(query)

    def show_view(self, view: RunView) -> None:
        line = self.query_one(Filter)
        if self._done is None and self.filter_text and not line.value:  # as it was left
            self.seek(self.filter_text)
        if not self._working and self._wanted(view) != self._done:
            self._working = True
            self.run_worker(self._look(), group="questions")
        self._show_found()

    def _wanted(self, view: RunView) -> Wanted:
        tested = view.task_accuracy.get("test")
        stamp = (tested and tested[0], view.tested_step) if self.split == "test" else (view.meta.get(VALIDATION_STEP),)
        return Wanted(self.split, stamp, self.query_wanted, self.order, self.beside)

    async def _look(self) -> None:
        """Find what is wanted; what is wanted meanwhile comes next."""
        try:
            while self.view is not None and (wanted := self._wanted(self.view)) != self._done:
                await self._find(self.view.summary.run, wanted)
                self._done = wanted
                self._show_found()
        finally:
            self._working = False

    async def _find(self, run: RunDir, wanted: Wanted) -> None:
        """Find what is wanted in threads, the questions before the answers of another arm."""
        before, done = self.found, self._done
        try:
            answered = before.answered
            if answered is None or done is None or (done.split, done.stamp) != (wanted.split, wanted.stamp):
                answered = await in_daemon_thread(lambda: Answered(run, wanted.split))
            found = await in_daemon_thread(lambda: _found(answered, wanted, before))
            self.found = found
            self._show_found()
            self.found = await in_daemon_thread(lambda: _with_arm(found, wanted.beside))
        except AcclError as error:
            self.found = Found(problem=str(error))
            if isinstance(error, BusyError):
                self.set_timer(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._done = None
        self.show()

    def _show_found(self) -> None:
        found, answered = self.found, self.found.answered
        names = [task.name for task in answered.tasks] if answered else []
        listed = self.query_one(QuestionList)
        empty = found.problem or (f"No question matches: {self.query_wanted.text}" if answered else "reading …")
        if (found.questions, empty) != (listed.questions, listed.empty):
            listed.show(found.questions, names, empty)
        self._show_head()
        self._show_question()
        redraw_keys(self)

    def _show_head(self) -> None:
        found, answered = self.found, self.found.answered
        pieces: list[Piece] = [("questions", theme.TITLE), (f"  {self.split}", theme.PLAIN)]
        if answered is not None:
            n, wrong = len(found.questions), sum(not question.right for question in found.questions)
            of = f"{n:,} of " if n != len(answered.questions) else ""
            pieces.append((f" · {of}{len(answered.questions):,} · {wrong:,} wrong", theme.BOLD))
            if problem := self.filter_problem or found.problem:
                pieces.append((f" · {problem}", theme.ERROR))
            pieces.append((f" · by {self.order}", theme.DIM))
            if found.setup is not None:
                pieces.append((f" · beside {found.setup.recipe} s{found.setup.seed}", theme.DIM))
        self.query_one("#found", Text).show(pieces)

    @on(Listing.CursorMoved)
    def _show_question(self) -> None:
        found, question = self.found, self.query_one(QuestionList).question
        detail = self.query_one(QuestionDetail)
        if question is None or found.answered is None or self.view is None:
            detail.show(None, (), ())
            return
        columns = [_column(self.view.summary.setup, question.predicted, question.probabilities)]
        if found.setup is not None and (answer := found.beside.get(question.id)):
            columns.append(_column(found.setup, answer.predicted, answer.probabilities))
        detail.show(question, columns, [task.name for task in found.answered.tasks], found.missing)

    def on_input_changed(self, event: Filter.Changed) -> None:
        event.stop()
        self._filter(event.value)

    def _filter(self, text: str) -> None:
        self.filter_text = text
        try:
            self.query_wanted, self.filter_problem = parse(text, QUESTIONS), ""
        except QueryError as error:  # while it is being typed: the questions stay those of before
            self.filter_problem = str(error)
        self.show()

    def on_filter_closed(self, event: Filter.Closed) -> None:
        event.stop()
        self.focus_main_widget()
        self.screen.query_one(KeyBar).show(self.scope, "run")

    def action_filter(self) -> None:
        self.query_one(Filter).open()
        self.screen.query_one(KeyBar).show("filter")

    def action_split(self) -> None:
        self.chosen_split = next_choice(SPLITS, self.split)
        self.show()

    def action_beside(self) -> None:
        if self.found.answered is not None:
            choices = [NONE, *self.found.answered.arms]
            self.beside = next_choice(choices, self.beside if self.beside in choices else NONE)
            self.show()

    @on(Listing.Chosen)
    def action_full(self) -> None:
        self.toggle_class("-full")
        self.query_one(QuestionDetail if self.has_class("-full") else QuestionList).focus()
        redraw_keys(self)

    def peel(self) -> bool:
        if not self.has_class("-full"):
            return False
        self.action_full()
        return True


def _found(answered: Answered, wanted: Wanted, before: Found) -> Found:
    """Find the questions; where a query needs answers that cannot be read, those of before stay."""
    order, kept = QuestionsPane.orders[wanted.order], before if before.answered is answered else Found(answered)
    try:
        questions = answered.find(wanted.query)
    except AcclError as error:
        return Found(answered, kept.questions, str(error), kept.beside, kept.setup, kept.missing)
    return Found(answered, sorted(questions, key=order), "", kept.beside, kept.setup, kept.missing)


def _with_arm(found: Found, arm: str) -> Found:
    """Put the answers of an arm beside those found."""
    beside, setup, missing = {}, None, ""
    if found.answered is not None and arm in found.answered.arms:
        try:
            beside, setup = found.answered.answers_of(arm), found.answered.arms[arm].setup
        except AcclError as error:
            missing = str(error)
    return Found(found.answered, found.questions, found.problem, beside, setup, missing)


def _column(setup: Setup, predicted: int, probabilities: Sequence[float]) -> Column:
    style = theme.arm_style(setup.recipe, setup.seed)
    return Column(f"{setup.recipe} s{setup.seed}", style, predicted, probabilities)
