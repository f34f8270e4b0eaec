"""The help page, made from the list of commands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from accl.store.vocabulary import CONFIG, QUESTIONS, RUNS, Vocabulary
from tui import theme
from tui.commands import SCOPES, bindings, of_scope
from tui.panes.health_charts import TEST_SYMBOL
from tui.text import Piece, fit, strip
from tui.widgets.charts import CHECKPOINT_SYMBOL, EVENT_SYMBOL
from tui.widgets.keybar import KeyBar
from tui.widgets.strip import Navigable, StripWidget

STATES = "… queued  ◌ starting  ▶ running  ◍ stalled  ✓ finished  ✗ failed  ■ stopped  ☠ crashed"
QUERIES = {
    "runs": ("What a filter of runs may say: val>30% seed:1,2 -tag:old", RUNS),
    "questions": ("What a filter of questions may say: wrong task:logic p>.8", QUESTIONS),
}
MARKS = (
    ("●", "selected"),
    ("▾ ▸", "a group with its runs, or folded"),
    ("╌ ┼", "floor: accuracy of a rule that never reads the question"),
    ("≠", "differs from the reference"),
    (EVENT_SYMBOL, "on the x axis: a warning or an error; the log has its text"),
    (CHECKPOINT_SYMBOL, "on the x axis: the last checkpoint and the best; among arms: the mean"),
    ("•", "a single measurement; among arms: a seed"),
    (TEST_SYMBOL, "the test, at the step whose weights were tested"),
)
FIGURES = (
    ("loss below 0", "contrastive: only negatives are in its denominator"),
    ("effective", "tasks that would be drawn as evenly: exp(entropy)"),
)
KEYS_WIDTH, COLUMN_WIDTH, MAX_COLUMNS = 13, 66, 3

Block = list[tuple[str, str]]  # keys and description; the first line is the title


class KeyPage(Navigable, StripWidget, can_focus=True):
    """All commands in columns, those of the scopes in force first; `top` is the first visible line."""

    BINDINGS = bindings("help")
    top = 0

    def __init__(self, first: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.scopes = [*first, *(scope for scope in SCOPES if scope not in first)]

    def blocks(self) -> list[Block]:
        """Return a block of lines for each scope, its queries behind it, then for states, marks and figures."""
        blocks = []
        for scope in self.scopes:
            keys = ((command.keys_display or ":", command.title) for command in of_scope(scope))
            blocks.append([(SCOPES[scope], ""), *keys])
            if scope in QUERIES:
                blocks.append(_query_keys(*QUERIES[scope]))
        states = ((state[:1], state[2:]) for state in STATES.split("  "))
        return [*blocks, [("States", ""), *states], [("Marks", ""), *MARKS], [("Figures", ""), *FIGURES]]

    def columns(self, count: int) -> list[Block]:
        """Return the blocks in so many columns of about the same height, in reading order."""
        blocks = self.blocks()
        height = sum(len(block) + 1 for block in blocks) / count
        columns: list[Block] = [[] for _ in range(count)]
        done = 0
        for block in blocks:
            columns[min(count - 1, int((done + len(block) / 2) / height))] += [*block, ("", "")]
            done += len(block) + 1
        return columns

    def page(self) -> list[list[Piece]]:
        """Return every line of the page."""
        count = max(1, min(MAX_COLUMNS, self.size.width // COLUMN_WIDTH))
        width = self.size.width // count
        return [
            [piece for cell in line for piece in _cell(*cell, width)]
            for line in zip_longest(*self.columns(count), fillvalue=("", ""))
        ]

    @property
    def page_height(self) -> int:
        return self.size.height

    def action_move(self, lines: int) -> None:
        self.top = max(0, min(self.top + lines, len(self.page()) - self.size.height))
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        return [strip(line, width) for line in self.page()[self.top : self.top + height]]


def _query_keys(title: str, vocabulary: Vocabulary) -> Block:
    keys = [(key.name, key.help) for key in vocabulary.keys]
    configured = [(f"{CONFIG}KEY", "configuration: cfg.optim.lr>=1e-4, or lr>=1e-4")] if vocabulary.configured else []
    language = [("a b  a OR b", "both, one of them"), ("-a  (a b)", "not a, brackets")]
    return [(title, ""), *keys, *configured, *language]


def _cell(keys: str, description: str, width: int) -> list[Piece]:
    if not description:
        return [(fit(keys, width), theme.TITLE)]
    return [
        ("  " + fit(keys, KEYS_WIDTH) + " ", theme.BOLD),
        (fit(description, max(0, width - KEYS_WIDTH - 4)) + " ", theme.DIM),
    ]


class HelpScreen(ModalScreen[None]):
    """All keys, by the screen or widget in which they work; those in ``scopes`` first."""

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__()
        self.scopes = scopes

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield KeyPage(self.scopes, id="keys")
            yield KeyBar("help")
