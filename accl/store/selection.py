"""Several runs chosen by what is typed: their names, or a query."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accl.errors import RunError
from accl.store.deadline import DEADLINE_S, within
from accl.store.query import parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir, is_run, list_runs, matching_runs
from accl.store.summary import Summary, SummaryReader, read_summaries, summarize


@dataclass(frozen=True)
class Choice:
    """Runs that were chosen.

    Attributes:
        summaries: one of each run.
        by_query: whether a query found them: what cannot be done with a run that was named is an error, and one that
            was found is left out.
    """

    summaries: tuple[Summary, ...]
    by_query: bool

    @property
    def runs(self) -> list[RunDir]:
        return [summary.run for summary in self.summaries]


def choose_runs(root: Path, words: Sequence[str]) -> Choice:
    """Return the runs that words mean: each word one run, or one word several, or else all words together a query.

    No words mean all runs, of which there may be none.

    Raises:
        QueryError: the words are neither names nor a query.
        RunError: nothing matches, or the folder cannot be read.
        BusyError: it does not answer in time.
    """
    return choose_among(list_runs(root), words, str(root), "accl runs")


def choose_among(runs: Sequence[RunDir], words: Sequence[str], where: str, list_command: str) -> Choice:
    """Return those of some runs, from the oldest to the newest, that words mean, as `choose_runs`.

    Args:
        where: the runs in words, and ``list_command`` what lists them, both for errors.
    """
    if not words:
        return Choice(tuple(summarize(runs)), True)
    found = [_meant(runs, word) for word in words]
    named = {run: None for matches in found for run in matches}
    if named and (len(words) == 1 or all(len(matches) == 1 for matches in found)):
        return Choice(tuple(summarize(named)), False)
    text = " ".join(words)
    if not (matching := matching_summaries(runs, text)):
        what = f"No run of {len(runs):,} in {where} matches: {text}"
        raise RunError(what, f"List the runs there are with: {list_command}")
    return Choice(tuple(matching), True)


def matching_summaries(runs: Sequence[RunDir], query: str) -> list[Summary]:
    """Return the summaries of those of some runs that a query matches, in their order; of all where it is blank.

    Raises:
        QueryError: the query cannot be understood.
    """
    wanted, now = parse(query), time.time()
    summaries = read_summaries([SummaryReader(run) for run in runs], now)
    return [summary for summary in summaries if wanted.matches(RunSubject(summary, now))]


def _meant(runs: Sequence[RunDir], word: str) -> list[RunDir]:
    if within(DEADLINE_S, lambda: is_run(RunDir(Path(word)))):
        return [RunDir(Path(os.path.realpath(word)))]
    return matching_runs(runs, word)
