"""Runs that were chosen for a command, without those with which it can do nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from accl.cli.output import print_notes
from accl.errors import AcclError

if TYPE_CHECKING:
    from accl.store.selection import Choice
    from accl.store.summary import Summary


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
