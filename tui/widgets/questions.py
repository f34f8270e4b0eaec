"""A list of questions, of which only the visible rows are made, and one question with its options as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual.strip import Strip

from accl.data.questions import letter
from accl.store.questions import Question
from accl.text import printable_lines, shortened
from tui import theme
from tui.commands import bindings
from tui.text import Piece, bar, cell_len, cut, fit, strip, wrapped
from tui.widgets.listing import Listing
from tui.widgets.strip import Navigable, StripWidget

RIGHT, WRONG = Style(color=theme.GOOD), Style(color=theme.BAD)
FIXED = 20  # cells of a row before its task
MIN_BAR, MAX_BAR = 6, 24
VALUE_CELLS = 7  # a probability in percent with the mark of the chosen option


class QuestionList(Listing):
    """Questions, one line each; the cursor stays on its question when others come and go."""

    questions: Sequence[Question] = ()
    names: Sequence[str] = ()
    empty = "reading …"

    def show(self, questions: Sequence[Question], names: Sequence[str], empty: str) -> None:
        """Replace the questions; ``names`` are those of the tasks, ``empty`` says why there are none."""
        before = self.question
        self.questions, self.names, self.empty, self.count = questions, names, empty, len(questions)
        if before is not None:
            self.cursor = next((i for i, question in enumerate(questions) if question.id == before.id), 0)
        self.redraw()
        self.post_message(self.CursorMoved())

    @property
    def question(self) -> Question | None:
        """Question at the cursor."""
        return self.questions[self.cursor] if self.cursor < len(self.questions) else None

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.questions:
            lines = [part for line in self.empty.splitlines() for part in wrapped(line, max(1, width - 2))]
            return [strip([("  " + line, theme.DIM)], width) for line in ["", *lines]]
        task_cells = max(8, min(28, (width - FIXED) * 2 // 5))
        head = f"  {'p':>5} said right  {'task':<{task_cells}} question"

        def pieces(entry: int) -> list[Piece]:
            question = self.questions[entry]
            mark = ("✓ ", RIGHT) if question.right else ("✗ ", WRONG)
            said, right = letter(question.predicted), letter(question.answer)
            text = cut(question.text[:width], max(0, width - FIXED - task_cells - 1))
            return [
                mark,
                (f"{100 * question.confidence:5.1f}", theme.BOLD),
                (f"   {said}     {right}   ", theme.PLAIN),
                (fit(self.names[question.task], task_cells), theme.DIM),
                (f" {text}", theme.PLAIN),
            ]

        return [strip([(head, theme.VERY_DIM)], width), *self.draw_entries(width, height, pieces)]


@dataclass(frozen=True)
class Column:
    """The answer of an arm to a question: index of the chosen option, and probabilities of the C options."""

    label: str
    style: Style
    predicted: int
    probabilities: Sequence[float]


class QuestionDetail(Navigable, StripWidget, can_focus=True):
    """A question with its options, and beside each the probability that every arm gave to it."""

    BINDINGS: ClassVar = bindings("lists")
    question: Question | None = None
    columns: Sequence[Column] = ()
    names: Sequence[str] = ()
    note = ""
    top = 0
    _length = 0

    def show(self, question: Question | None, columns: Sequence[Column], names: Sequence[str], note: str = "") -> None:
        """Replace the question; ``names`` are those of the tasks, and ``note`` is said below."""
        if question is not self.question:
            self.top = 0
        self.question, self.columns, self.names, self.note = question, columns, names, note
        self.redraw()

    @property
    def page_height(self) -> int:
        return max(1, self.size.height - 1)

    def action_move(self, lines: int) -> None:
        top = max(0, min(self.top + lines, self._length - self.size.height))
        if top != self.top:
            self.top = top
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if self.question is None:
            return []
        lines = self._lines(self.question, width)
        self._length = len(lines)
        self.top = max(0, min(self.top, self._length - height))
        shown = [strip(line, width) for line in lines[self.top : self.top + height]]
        if shown and self.top + height < self._length:
            shown[-1] = strip(
                [(fit(f"  ↓ {self._length - self.top - height + 1} more lines", width), theme.DIM)], width
            )
        return shown

    def _lines(self, question: Question, width: int) -> list[list[Piece]]:
        task = self.names[question.task]
        verdict: Piece = ("✓ right", RIGHT) if question.right else ("✗ wrong", WRONG)
        title_style = theme.TITLE if self.has_focus else theme.BOLD
        lines: list[list[Piece]] = [[verdict, (f"  {task}", title_style), (f"  {question.id}", theme.VERY_DIM)]]
        lines += [[(line, theme.PLAIN)] for line in _paragraphs(question.text, width)]
        lines += self._options(question, width)
        if question.neighbours:
            near = ", ".join(self.names[index] for index in question.neighbours)
            lines += [[(line, theme.DIM)] for line in wrapped(f"nearest other tasks: {near}", width)]
        return lines + [[(line, theme.MARK)] for line in wrapped(self.note, width) if line]

    def _options(self, question: Question, width: int) -> list[list[Piece]]:
        """Draw the options, each with a bar for every arm beside its first line."""
        arms = max(1, len(self.columns))
        longest = max(cell_len(option[:width]) for option in question.options)
        room = max(8, min(longest, width - 4 - arms * (VALUE_CELLS + MIN_BAR + 1)))
        bar_cells = max(3, min(MAX_BAR, (width - 4 - room) // arms - VALUE_CELLS - 1))
        each = bar_cells + VALUE_CELLS
        lines: list[list[Piece]] = [
            [(" " * (4 + room), theme.PLAIN)] + [(" " + fit(arm.label, each), arm.style) for arm in self.columns]
        ]
        for i, option in enumerate(question.options):
            gold = i == question.answer
            texts = _paragraphs(option, room)
            first: list[Piece] = [(f"{'✓' if gold else ' '} {letter(i)} ", RIGHT if gold else theme.DIM)]
            first.append((fit(texts[0], room), theme.BOLD if gold else theme.PLAIN))
            for arm in self.columns:
                share = arm.probabilities[i]
                chosen = i == arm.predicted
                first.append((" " + bar(share, bar_cells), arm.style))
                number = f"{100 * share:5.1f}{' ◂' if chosen else '  '}"
                first.append((number, theme.BOLD if chosen else theme.DIM))
            lines.append(first)
            lines += [[("    ", theme.PLAIN), (text, theme.BOLD if gold else theme.PLAIN)] for text in texts[1:]]
        return lines


def _paragraphs(text: str, width: int) -> list[str]:
    """Wrap a text with its own line breaks kept."""
    return [part for line in printable_lines(shortened(text)).split("\n") for part in wrapped(line, width)]
