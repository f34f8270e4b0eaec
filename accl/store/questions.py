"""The questions of an evaluated split and a run's answers to them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from accl.errors import AbsentError
from accl.store.database import Row
from accl.store.reader import attached, checking
from accl.store.rundir import RunDir
from accl.store.schema import COLUMNS, check_rows

SPLITS = ("test", "validation")
_ANSWERS = f"SELECT {', '.join(COLUMNS['predictions'])} FROM run.predictions WHERE split = ? ORDER BY task, question_id"
_ASKED = (
    f"SELECT {', '.join(COLUMNS['questions'])} FROM run.questions "
    "WHERE id IN (SELECT question_id FROM run.predictions WHERE split = ?)"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the answer to it.

    Attributes:
        task: index of its task.
        options: C texts.
        answer, predicted: indices of the right option and of the chosen one.
        probabilities: of the C options.
        neighbours: other tasks whose prototypes are nearest to the question, nearest first; empty where not known.
    """

    id: str
    task: int
    text: str
    options: list[str]
    answer: int
    predicted: int
    probabilities: list[float]
    neighbours: list[int]

    @property
    def right(self) -> bool:
        """Whether the right option was chosen."""
        return self.predicted == self.answer

    @property
    def confidence(self) -> float:
        """Probability of the chosen option."""
        return self.probabilities[self.predicted]

    @property
    def by_mistake(self) -> tuple[bool, float]:
        """Sort key: wrong answers first, those given with most confidence on top; then right ones, least sure first."""
        return self.right, self.confidence if self.right else -self.confidence


class Answer(NamedTuple):
    """An answer without its question: indices of the right and the chosen option, probabilities of the C options."""

    gold: int
    predicted: int
    probabilities: list[float]

    @property
    def right(self) -> bool:
        """Whether the right option was chosen."""
        return self.predicted == self.gold


def read_questions(run: RunDir, split: str = "test") -> list[Question]:
    """Return the questions of a split of `SPLITS` and the answers to them, in the order of tasks and ids.

    Those of ``validation`` are of the best one so far.

    Raises:
        AbsentError: none are recorded (yet), or an earlier version recorded the answers alone.
        BusyError, DamagedError, RunError: the database cannot be read.
    """
    with _uncollected(), attached(run.database) as execute:
        if execute.missing:
            raise _texts_absent(run, split)
        answers, asked = execute(_ANSWERS, split), execute(_ASKED, split)
        [[tasks]] = execute("SELECT count(*) FROM run.tasks")
    if not answers:
        raise _answers_absent(run, split)
    with _uncollected(), checking(run.database):
        check_rows("predictions", answers)
        check_rows("questions", asked)
        questions = _joined(answers, asked, tasks)
    if not questions:
        raise _texts_absent(run, split)
    return questions


def read_answers(run: RunDir, split: str = "test") -> dict[str, Answer]:
    """Return the answers of a run to a split of `SPLITS` by the question's id; also of one without the texts.

    Raises:
        AbsentError: none are recorded (yet).
        BusyError, DamagedError, RunError: the database cannot be read.
    """
    with _uncollected(), checking(run.database), attached(run.database) as execute:
        rows = execute(_ANSWERS, split)
        check_rows("predictions", rows)
        if not all(0 <= option < len(row[5]) for row in rows for option in row[3:5]):
            raise ValueError("answers that are no options")
    if not rows:
        raise _answers_absent(run, split)
    return {name: Answer(*answer) for _, name, _, *answer in rows}


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage in a block that makes many objects and drops none: looking for it would take half the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _joined(answers: Sequence[Row], asked: Sequence[Row], tasks: int) -> list[Question]:
    """Put each answer beside its question; those whose question is not recorded are left out.

    Raises:
        ValueError: no run of so many tasks records such rows.
    """
    by_id = {row[0]: row for row in asked}
    if len(by_id) < len(asked) or len({row[1] for row in answers}) < len(answers):
        raise ValueError("questions that come twice")
    questions = [
        Question(name, task, asked_as[2], asked_as[3], gold, predicted, probabilities, asked_as[5])
        for _, name, task, gold, predicted, probabilities in answers
        if (asked_as := by_id.get(name))
    ]
    for question in questions:
        _, task, _, options, answer, neighbours = by_id[question.id]
        if not (0 <= question.answer < len(options) == len(question.probabilities) > question.predicted >= 0):
            raise ValueError("answers with options that the question does not have")
        near = (task, *neighbours)
        if (task, answer) != (question.task, question.answer) or min(near) < 0 or max(near) >= tasks:
            raise ValueError("questions of tasks that the run does not have")
    return questions


def _answers_absent(run: RunDir, split: str) -> AbsentError:
    tested = f"when it has been trained, or with: accl test {run.typed}"
    when = tested if split == "test" else "with its first validation."
    return AbsentError(f"{run.id} has no answers to the {split} questions.", f"A run records them {when}")


def _texts_absent(run: RunDir, split: str) -> AbsentError:
    what = f"{run.id} does not have the texts of its {split} questions: an earlier version recorded its answers alone."
    return AbsentError(what, "Train it again to read them.")
