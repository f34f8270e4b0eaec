"""The confusion matrices that a run has and those it is compared with; what the view does not hold is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accl.store.columns import RunReader
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.questions import Question, read_questions
from accl.store.reader import Confusion
from accl.store.rundir import RunDir, Setup, run_folders
from tui.feed import RunView
from tui.panes.recall import Recall
from tui.raster import Floats

MAX_MOMENTS = 32
KIND_NAMES = {
    "similarity": "similarity, training stream",
    "similarity/test": "similarity, test questions",
    "prototype": "nearest prototype, training stream",
    "prototype/test": "nearest prototype, test questions",
    "literal": "literal, as published",
}


Taken = dict[frozenset[int], list[Question]]


@dataclass(frozen=True, eq=False)
class History:
    """Matrices over time: S steps, ascending, and a K x K matrix of each, NaN where nothing was measured."""

    steps: Sequence[int] = ()
    matrix_SKK: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


@dataclass(frozen=True, eq=False)
class Reference:
    """The matrix that another is compared with, NaN where nothing was measured, and what it is of."""

    label: str
    names: Sequence[str]
    matrix: Floats

    def of(self, names: Sequence[str]) -> Floats:
        """Return the matrix of tasks of these names, NaN where it has no such task."""
        places = {name: i for i, name in enumerate(self.names)}
        index = np.array([places.get(name, len(self.names)) for name in names], np.int64)
        return np.pad(self.matrix, (0, 1), constant_values=np.nan)[np.ix_(index, index)]


NOTHING_YET = Reference("", (), np.zeros((0, 0)))


def known(confusion: Confusion) -> Floats:
    """Return the matrix with NaN where nothing was measured."""
    return np.where(confusion.counts > 0, confusion.matrix, np.nan)


def read_history(run: RunDir, kind: str, steps: Sequence[int]) -> History:
    """Read at most `MAX_MOMENTS` of the matrices at these steps."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(MAX_MOMENTS, len(steps))).round().astype(int))
    matrices = RunReader(run).confusions(kind, [steps[i] for i in chosen])
    return History([m.step for m in matrices], np.array([known(m) for m in matrices], np.float32))


def read_reference(run: RunDir, label: str, kind: str, step: int) -> Reference | None:
    """Read the matrix of a run that is nearest before a step, or its first; None if it has none of the kind."""
    reader = RunReader(run)
    last = reader.read({"confusion"})
    if not (steps := last.confusion_steps.get(kind)):
        return None
    at = max((s for s in steps if s <= step or kind.endswith("/test")), default=steps[0])
    found = last.confusion[kind] if at == steps[-1] else reader.confusion_at(kind, at)
    if found is None:
        return None
    return Reference(label if at == step else f"{label} at {at:,}", [task.name for task in last.tasks], known(found))


def read_references(run: RunDir, setup: Setup) -> list[tuple[RunDir, str]]:
    """Return the other runs of the folder with the same profile, and a label of each.

    Those of the same seed come first, of these the baseline, then the oldest.
    """
    others = [other for other in run_folders(run.path.parent) if other.id != run.id]
    ranked = []
    for other, found in each_within(DEADLINE_S, RunDir.setup, others):
        if isinstance(found, Setup) and found.profile == setup.profile:
            key = (found.seed != setup.seed, found.recipe != "baseline", other.id)
            ranked.append((key, other, f"{found.recipe} s{found.seed}"))
    return [(other, label) for _, other, label in sorted(ranked, key=lambda entry: entry[0])]


def read_taken(run: RunDir) -> Taken:
    """Read the test questions that are nearest to another task's prototype, by the pair; wrong answers first."""
    taken: Taken = {}
    for question in sorted(read_questions(run), key=lambda q: (q.right, -q.probabilities[q.predicted])):
        if question.neighbours:
            taken.setdefault(frozenset((question.task, question.neighbours[0])), []).append(question)
    return taken


class Matrices:
    """Matrices of the run of a view, by kind and step, from the view or from the recall of its pane."""

    def __init__(self, recall: Recall) -> None:
        self._recall = recall
        self._base: tuple[str, Reference | None] = ("", None)
        self._history: tuple[object, History] = ("", History())

    @staticmethod
    def kind(view: RunView, chosen: str) -> str:
        """Return the chosen kind if it was measured, or else the most telling one; empty without any."""
        wanted = (chosen, "similarity/test", "similarity", *sorted(view.confusion))
        return next((kind for kind in wanted if kind in view.confusion), "")

    def at(self, view: RunView, kind: str, step: int | None) -> Confusion | None:
        """Return the matrix at a step, or the newest; None while it is read, or if it cannot be."""
        newest, run = view.confusion[kind], view.summary.run
        if step is None or step == newest.step or step not in view.confusion_steps[kind]:
            return newest
        key = ("matrix", run, view.meta.get("generation"), kind, step)
        confusion: Confusion | None = self._recall.get(key, lambda: RunReader(run).confusion_at(kind, step))
        return confusion if confusion is not None and len(confusion.matrix) == len(newest.matrix) else None

    def history(self, view: RunView, kind: str) -> History:
        """Return the matrices of a kind over time; those known before while newer ones are read."""
        run, steps = view.summary.run, view.confusion_steps[kind]
        of = (run, view.meta.get("generation"), kind)
        before = self._history[1] if self._history[0] == of else History()
        history: History = self._recall.get(("history", *of, steps[-1]), lambda: read_history(run, kind, steps), before)
        if history.matrix_SKK.shape[1:] != view.confusion[kind].matrix.shape:
            history = History()
        self._history = (of, history)
        return history

    def references(self, view: RunView, chosen: str) -> list[tuple[RunDir, str]] | None:
        """Return the runs that the run can be compared with, the chosen id first; None while they are looked for."""
        run, setup = view.summary.run, view.summary.setup
        found: list[tuple[RunDir, str]] | None = self._recall.get(("runs", run), lambda: read_references(run, setup))
        return found and sorted(found, key=lambda other: other[0].id != chosen)

    def base(
        self, view: RunView, confusion: Confusion, difference: str, chosen: str, step: int | None
    ) -> Reference | None:
        """Return what a matrix is compared with; None for nothing. What it was before is kept while another is read.

        Args:
            difference: ``run``, ``moment``, which also takes the place of a run if there is none, or ``none``.
            chosen: id of the run, as in `references`.
            step: the moment; None for the first.
        """
        kind = confusion.kind
        base = None
        if difference == "run":
            before = self._base[1] if self._base[0] == kind else None
            base = self._of_run(view, confusion, chosen, before)
        if base is None and difference != "none":
            base = self._of_moment(view, confusion, step)
        self._base = (kind, base)
        return base

    def _of_run(self, view: RunView, confusion: Confusion, chosen: str, before: Reference | None) -> Reference | None:
        """Return the matrix of the chosen run; None if there is no such run, or if it has none of the kind."""
        others = self.references(view, chosen)
        if others is None:
            return before or NOTHING_YET
        if not others:
            return None
        (other, label), kind, step = others[0], confusion.kind, confusion.step
        key = ("reference", other, kind, step)
        base: Reference | None = self._recall.get(
            key, lambda: read_reference(other, label, kind, step), before or NOTHING_YET
        )
        return base

    def _of_moment(self, view: RunView, confusion: Confusion, step: int | None) -> Reference | None:
        steps = view.confusion_steps[confusion.kind]
        at = step if step in steps else steps[0]
        base = self.at(view, confusion.kind, at) if at != confusion.step else None
        return None if base is None else Reference(f"step {at:,}", [task.name for task in view.tasks], known(base))

    def taken(self, view: RunView) -> Taken:
        """Return the test questions by the pair that they stand between, once there are any."""
        if not any(kind.endswith("/test") for kind in view.confusion):
            return {}
        run = view.summary.run
        taken: Taken = self._recall.get(("questions", run, view.meta.get("generation")), lambda: read_taken(run), {})
        return taken
