"""Pane 6: the whole console log, searched and scrolled by offset, beside the events of the run."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import ClassVar, TypeVar

import numpy as np
from rich.style import Style
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal

from accl.errors import AcclError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.summary import as_problem
from accl.text import duration
from tui import theme
from tui.commands import bindings
from tui.feed import RunView, without_path
from tui.logfile import MAX_HITS, LogFile, Search, step_of
from tui.messages import ShowStep
from tui.panes.pane import Pane
from tui.text import Piece
from tui.threads import in_daemon_thread
from tui.widgets.filter import Filter
from tui.widgets.keybar import redraw_keys, say
from tui.widgets.logview import LogView
from tui.widgets.text import Log, Text

Result = TypeVar("Result")

LEVEL_STYLES = {"warning": Style(color=theme.WARN), "error": theme.ERROR}


class LogPane(Pane):
    """The console log and the events.

    What the cursor of the charts stands at is marked in both; `enter` puts that cursor where the log is.
    """

    needs = frozenset({"curves", "events", "console"})
    scope = "log"
    BINDINGS = bindings(scope)
    main_widget = LogView
    settings: ClassVar = {"wrap": (False, True)}
    wrap = False
    search: Search | None = None
    _waits = True
    _file: LogFile | None = None
    _problem = ""
    _marked_step: float | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="log-head")
        with Horizontal(id="log-body"):
            yield LogView(id="log-lines")
            yield Log("events", "nothing happened yet", wrap=True, id="log-events")
        yield Filter("text to find: n next, N previous", id="find")

    @property
    def pending(self) -> str:
        return "its log" if self._waits or (self.search is not None and self.search.more) else ""

    @property
    def console(self) -> LogView:
        return self.query_one(LogView)

    # What the keys can do now, see `tui.commands`.

    @property
    def scrolls(self) -> bool:
        return not self.wrap

    @property
    def shows_events(self) -> bool:
        return not any(map(self.screen.has_class, ("-no-side", "-tiny", "-short")))

    def show_view(self, view: RunView) -> None:
        self.console.wrap = self.wrap
        self._file = self._file or LogFile(view.summary.run.console)
        self._show_events(view)
        self._read(None if self.console.follows else self.console.place)
        if self.cursor_step != self._marked_step:
            self._mark(self.cursor_step)

    def _show_events(self, view: RunView) -> None:
        clock = max(view.curves.values(), key=lambda curve: int(curve.last[-1]), default=None)
        now = math.nan
        if clock is not None and self.cursor_step is not None:
            now = float(np.interp(self.cursor_step, clock.last, clock.seconds))
        current = bisect_right([event.seconds for event in view.events], now) - 1 if now == now else -1
        entries = []
        for i, event in enumerate(view.events):
            step = ""
            if clock is not None and event.seconds >= clock.seconds[0]:
                step = f"{np.interp(event.seconds, clock.seconds, clock.last):,.0f}"
            label: Piece = (f"{'▸' if i == current else ' '}{duration(event.seconds):>9} {step:>6} ", theme.VERY_DIM)
            level = [(f"{event.level}: ", LEVEL_STYLES[event.level])] if event.level in LEVEL_STYLES else []
            entries.append([label, *level, (event.message, theme.BOLD if i == current else theme.PLAIN)])
        self.query_one("#log-events", Log).show(entries)

    # Reading, in threads: the disk may not answer.

    async def _ask(self, ask: Callable[[LogFile], Result]) -> Result | None:
        """Ask the file, None where it cannot be read, which the head says."""
        file, view = self._file, self.view
        if file is None or view is None:
            return None

        def answer() -> Result:
            ((_, found),) = each_within(DEADLINE_S, lambda _: ask(file), [view.summary.run])
            if isinstance(found, BaseException):
                raise found
            return found

        try:
            found = await in_daemon_thread(answer)
        except FileNotFoundError:
            return None
        except Exception as error:
            problem: AcclError = as_problem(error, file.path)
            self._problem = without_path(str(problem), view.summary.run)
            return None
        self._problem = ""
        return found

    @work(exclusive=True, group="log-part")
    async def _read(self, offset: int | None) -> None:
        log, before = self.console, self.console.part
        part = await self._ask(lambda file: file.around(offset))
        self._waits = False
        if part is not None and (log.follows or part.generation != before.generation or part.covers(log.place)):
            log.show(part, "nothing was printed yet")
        elif self._problem:
            log.empty = self._problem
            log.redraw()
        if part is not None and self.search is not None and part.size != before.size:
            self.search = self.search if part.generation == before.generation else Search(self.search.text)
            self._find()
        self._show_head()

    @on(LogView.Wanted)
    def _read_more(self, event: LogView.Wanted) -> None:
        self._read(event.offset)

    @work(exclusive=True, group="log-mark")
    async def _mark(self, step: float | None) -> None:
        """Mark the line of a step, and go there."""
        self._marked_step = step
        offset = None if step is None else await self._ask(lambda file: file.at_step(step))
        log = self.console
        log.marked = None
        if offset is not None and (part := await self._ask(lambda file: file.around(offset))) and part.lines:
            log.show(part, log.empty)
            log.go(offset)
            log.marked = log.place
        log.redraw()
        self._show_head()

    # Searching.

    @on(Filter.Changed, "#find")
    def _search_anew(self, event: Filter.Changed) -> None:
        event.stop()
        self.search = Search(event.value) if event.value else None
        self.console.found = event.value
        self.console.redraw()
        self._show_head()
        redraw_keys(self)
        if self.search is not None:
            self._find(at=self.console.place)

    @work(exclusive=True, group="log-search")
    async def _find(self, at: int | None = None) -> None:
        """Search the rest of the file; go to the first line found from an offset on, or else to the first of all."""
        search = self.search
        assert search is not None
        search.more = True
        while search.more:
            await self._ask(lambda file: file.search(search))
            if self._problem:
                return
            if at is not None and search.hits and (search.hits[-1] >= at or not search.more):
                self.console.go(search.hits[min(bisect_left(search.hits, at), len(search.hits) - 1)])
                at = None
            self._show_head()

    def on_filter_closed(self, event: Filter.Closed) -> None:
        event.stop()
        self.focus_main_widget()

    def action_find(self) -> None:
        self.query_one("#find", Filter).open()

    def action_next(self, direction: int) -> None:
        """Go to the next (1) or previous (-1) line found, cyclically."""
        log = self.console
        if self.search is None or not self.search.hits or not log.part.lines:
            return
        hits, line = self.search.hits, log.part.lines[log.index(log.place)]
        index = bisect_left(hits, line.end) if direction > 0 else bisect_left(hits, line.start) - 1
        log.go(hits[index % len(hits)])

    # What else the keys do.

    def action_wrap(self) -> None:
        self.console.toggle_wrap()
        self.wrap = self.console.wrap
        self._show_head()

    def action_sideways(self, direction: int) -> None:
        self.console.sideways(direction)

    def action_step(self) -> None:
        """Put the cursor of the charts at the step that the line names."""
        step = step_of(self.console.text_at_cursor)
        if step is not None:
            self._marked_step, self.console.marked = step, self.console.place
            self.console.redraw()
            self.post_message(ShowStep(step))
        else:
            say(self, "this line names no step")

    @on(LogView.Moved)
    def _show_head(self) -> None:
        log, search = self.console, self.search
        size = log.part.size
        place = "follows the end" if log.follows else f"{log.place / max(1, size):.0%}"
        pieces: list[Piece] = [("console.log", theme.TITLE), (f"  {_bytes(size)} · {place}", theme.DIM)]
        if self._problem:
            pieces.append((f"  {self._problem}", theme.ERROR))
        if search is not None and log.part.lines:
            count, line = len(search.hits), log.part.lines[log.index(log.place)]
            here = bisect_left(search.hits, line.end)
            on_hit = here > 0 and search.hits[here - 1] >= line.start
            text = f"{here:,} of {count:,}" if on_hit else f"{count:,}"
            more = " …" if search.more else "+" if count >= MAX_HITS else ""
            pieces.append((f"  /{search.text}  {text}{more} lines", theme.MARK))
        if log.wrap:
            pieces.append(("  wrapped", theme.VERY_DIM))
        if self.cursor_step is not None:
            pieces.append((f"  ▸ step {self.cursor_step:,.0f}", theme.MARK))
        self.query_one("#log-head", Text).show(pieces)


def _bytes(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
