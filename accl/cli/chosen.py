"""Runs that were chosen for a command, without those with which it can do nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accl.cli.output import print_notes
from accl.errors import AcclError, BusyError, RunError

if TYPE_CHECKING:
    from accl.store.selection import Choice
    from accl.store.state import State
    from accl.store.summary import Summary


@dataclass(frozen=True)
class Verb:
    """A command that acts on runs according to their states.

    Attributes:
        done: what it makes of a run, in words that follow *is*. able: what a run does that it can act on.
        takes: whether it acts on a run in this state that a query finds.
        refuses: whether a run in this state that is named is refused, and all that are named beside it.
    """

    done: str
    able: str
    takes: Callable[[State], bool]
    refuses: Callable[[State], bool]


def chosen_for(verb: Verb, root: Path, words: Sequence[str]) -> list[Summary]:
    """Return the runs that words name, or of those that a query finds the ones that a command acts on.

    A run that is named alone is returned in whatever state it is.

    Raises:
        QueryError, RunError: as `accl.store.selection.choose_runs`, or what was named or found is refused.
    """
    from accl.store.selection import choose_runs

    choice = choose_runs(root, words)
    if not choice.by_query:
        for run, state in [(each.run, each.state) for each in choice.summaries if len(choice.summaries) > 1]:
            if state and verb.refuses(state.state):
                what = f"{run.id} is {state.state}, and so none of the {len(choice.summaries)} runs is {verb.done}."
                raise (BusyError if state.state.active else RunError)(what, "Leave it out.")
        return list(choice.summaries)
    able = [each for each in choice.summaries if each.state and verb.takes(each.state.state)]
    others = [each for each in choice.summaries if each not in able]
    left_out = Counter(each.state.state.value if each.state else "unreadable" for each in others)
    said = ", ".join(f"{count} {word}" for word, count in left_out.items())
    if not able:
        raise RunError(f"None of the runs that match {verb.able}: {said}.", "See: accl runs")
    if left_out:
        print_notes([f"left out: {said}"])
    return able


def usable(choice: Choice, why_not: Callable[[Summary], AcclError | None]) -> list[Summary]:
    """Return the runs with which something can be done; of those that a query found, notes say why others cannot be.

    Raises:
        AcclError: a run that was named is none of them, or none is left.
    """
    reasons = {summary.run: why_not(summary) for summary in choice.summaries}
    refused = [reason for reason in reasons.values() if reason is not None]
    able = [summary for summary in choice.summaries if reasons[summary.run] is None]
    if refused and not (able and choice.by_query):
        raise refused[0]
    print_notes([str(reason) for reason in refused])
    return able
