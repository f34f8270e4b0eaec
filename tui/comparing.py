"""Views, arms and answers of the runs of a comparison, and how the arms compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from accl.analysis.grouping import Arm, group_runs, in_order
from accl.errors import AcclError
from accl.store.rundir import RunDir
from accl.store.state import RunState, State
from accl.store.summary import Summary
from tui.feed import RunSummary, RunView, without_path
from tui.threads import in_daemon_thread

if TYPE_CHECKING:
    from accl.analysis.arms import ArmsComparison
    from accl.analysis.results import Results


class Comparing:
    """Runs that are compared, as they are read.

    Answers are read while the views of other runs still come: their databases were opened just now.

    Attributes:
        runs: those that were chosen; everything else names them by their index.
        views: of each, an empty one until it was read.
        missing: those not read yet.
        groups: the arms, beginning with that which is the reference if nobody chooses another.
        arms: the arms, beginning with the reference.
        comparison: None until it has been computed; it stays until the next one is.
    """

    def __init__(self, runs: Sequence[RunDir]) -> None:
        self.runs = list(runs)
        self.views = [RunView(summary=RunSummary(Summary(run), RunState(), math.nan)) for run in runs]
        self.missing = set(range(len(runs)))
        self.groups: list[Arm] = []
        self.arms: list[Arm] = []
        self.comparison: ArmsComparison | None = None
        self._index = {run: i for i, run in enumerate(runs)}
        self._answers: dict[int, Results | AcclError] = {}
        self._chosen = ""
        self._is_stale = True  # whether arms, reference or answers are others than those compared

    @property
    def reference(self) -> str:
        """Label of the arm that the others are compared with."""
        return self.arms[0].label if self.arms else ""

    def take(self, view: RunView) -> None:
        """Take in what is new of a run."""
        i = self._index[view.summary.run]
        before, self.views[i] = self.views[i], view
        self.missing.discard(i)
        if why_not(view) or isinstance(self._answers.get(i), AcclError):  # perhaps it can be read now
            self._is_stale |= self._answers.pop(i, None) is not None
        self._is_stale |= view.summary.summary.setup != before.summary.summary.setup
        self._is_stale |= view.summary.summary.config != before.summary.summary.config

    def choose(self, reference: str) -> None:
        """Choose the arm to compare with, by its label; it is the reference once `advance` has compared."""
        self._chosen, self._is_stale = reference, True

    def group(self) -> None:
        """Group the runs that have been read."""
        self.groups, self.arms = self._grouped(self.comparison.reference if self.comparison else self._chosen)

    def _grouped(self, reference: str) -> tuple[list[Arm], list[Arm]]:
        known = [i for i in range(len(self.runs)) if i not in self.missing]
        summaries = [self.views[i].summary for i in known]
        arms = group_runs([(s.setup.recipe, s.setup.seed, s.summary.config) for s in summaries])
        groups = [
            Arm(arm.label, arm.recipe, tuple(known[i] for i in arm.members), arm.values)
            for arm in in_order(arms, [s.created for s in summaries])
        ]
        return groups, sorted(groups, key=lambda arm: arm.label != reference)

    # Answers and the comparison.

    @property
    def is_due(self) -> bool:
        """Whether there is something for `advance` to do."""
        return bool(self._unread) or (self._is_stale and not self.missing)

    @property
    def _unread(self) -> list[int]:
        return [
            i
            for i, view in enumerate(self.views)
            if i not in self.missing and i not in self._answers and not why_not(view)
        ]

    async def advance(self) -> None:
        """Read the answers of the runs that have ended, or else, once all runs were read, compare the arms."""
        if unread := self._unread:
            self._answers |= await in_daemon_thread(partial(_read_answers, self.runs, unread))
            self._is_stale = True
            return
        self._is_stale = False
        _, arms = self._grouped(self._chosen)
        if arms:
            self.comparison = await in_daemon_thread(partial(_compare, arms, self._answers.copy()))
            self.group()

    @property
    def problems(self) -> dict[int, str]:
        """Why a run takes no part, by its index."""
        refused = self.comparison.problems if self.comparison else {}
        problems = {}
        for i, view in enumerate(self.views):
            answer = self._answers.get(i)
            error = answer if isinstance(answer, AcclError) else refused.get(i)
            if i not in self.missing and (why := why_not(view) or str(error or "")):
                problems[i] = why
        return problems


def why_not(view: RunView) -> str:
    """Say what keeps a run from being compared that has no results; empty if nothing is known to."""
    problem = view.summary.summary.problem or view.problem
    if problem is not None:
        return without_path(str(problem), view.summary.run)
    state = view.summary.state.state
    return "" if state is State.FINISHED else f"it is {state}"


# The statistics are imported in these threads: the curves need not wait for them.


def _read_answers(runs: Sequence[RunDir], indices: Iterable[int]) -> dict[int, Results | AcclError]:
    from accl.analysis.results import read_results

    answers: dict[int, Results | AcclError] = {}
    for i in indices:
        try:
            answers[i] = read_results(runs[i], measured=False)
        except AcclError as error:
            answers[i] = error
    return answers


def _compare(arms: Sequence[Arm], answers: dict[int, Results | AcclError]) -> ArmsComparison:
    from accl.analysis.arms import compare_arms

    results = {i: answer for i, answer in sorted(answers.items()) if not isinstance(answer, AcclError)}
    return compare_arms(arms, arms[0].label, results)
