"""The questions of a split that a query finds, beside the answers of the runs that belong next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from accl.data.questions import letter
from accl.errors import AbsentError
from accl.store.deadline import within
from accl.store.query import Query
from accl.store.questions import Answer, Question, read_answers, read_questions
from accl.store.reader import TASKS, Task, query, read_tasks
from accl.store.rundir import RunDir, run_folders
from accl.store.summary import Summary, reading, summarize
from accl.store.vocabulary import WORDS, Value
from accl.text import listed, printable

READ_S = 15.0  # a large database on a slow disk takes seconds


def arms_beside(run: RunDir) -> dict[str, Summary]:
    """Return the runs in the folder of a run whose answers belong beside its own, by the name of their arm.

    They have its profile. Another recipe has its name, and stands for its run of the same seed if there is one; other
    seeds of the same recipe are named ``s2``. Those that finished come before others, then the newest before older
    ones. The arm ``baseline`` is first.
    """
    runs = dict.fromkeys((run, *run_folders(run.path.parent)))
    own, *others = summarize(runs)
    if (wanted := own.setup) is None:
        return {}
    arms: dict[str, Summary] = {}
    for other in sorted(others, key=lambda other: (other.has_finished, _seed(other) == wanted.seed, other.age_key)):
        setup = other.setup
        if setup and setup.profile == wanted.profile and (setup.recipe, setup.seed) != (wanted.recipe, wanted.seed):
            arms[f"s{setup.seed}" if setup.recipe == wanted.recipe else setup.recipe] = other
    return dict(sorted(arms.items(), key=lambda arm: (arm[0] != "baseline", arm[0])))


def _seed(summary: Summary) -> int | None:
    return summary.setup.seed if summary.setup else None


class Answered:
    """The questions of a split and a run's answers to them; those of other arms are read when they are asked for.

    Attributes:
        questions: in the order of tasks and ids.
        tasks: K tasks of the run, in index order.
    """

    def __init__(self, run: RunDir, split: str) -> None:
        """Read the questions.

        Raises:
            AbsentError: none are recorded (yet), or an earlier version recorded the answers alone.
            BusyError, DamagedError, RunError: the database cannot be read.
        """
        with reading(run.database):
            self.questions, self.tasks = within(READ_S, lambda: _read(run, split))
        self.run, self.split = run, split
        self._answers: dict[str, dict[str, Answer]] = {}

    @cached_property
    def arms(self) -> Mapping[str, Summary]:
        """Runs that belong beside this one, by the name of their arm; they are looked for once."""
        return arms_beside(self.run)

    def answers_of(self, arm: str) -> dict[str, Answer]:
        """Return the answers of another arm by the question's id; they are read once.

        Raises:
            AbsentError: there is no such arm, or it did not answer these questions.
            BusyError, DamagedError, RunError: its database cannot be read.
        """
        if arm not in self._answers:
            if arm not in self.arms:
                have = f"There is: {listed(list(self.arms), 'and')}." if self.arms else "There is no other run."
                raise AbsentError(f"No run of {arm} has the profile of this one.", have)
            run = self.arms[arm].run
            with reading(run.database):
                answers = within(READ_S, lambda: read_answers(run, self.split))
            both = [(answers[q.id], q) for q in self.questions if q.id in answers]
            if not both or any((a.gold, len(a.probabilities)) != (q.answer, len(q.options)) for a, q in both):
                raise AbsentError(f"{run.id} was asked other {self.split} questions.", "Train both on the same data.")
            self._answers[arm] = answers
        return self._answers[arm]

    def find(self, wanted: Query) -> list[Question]:
        """Return the questions that a query finds; what ``flip`` is compared with is read first.

        Raises:
            RunError: as `answers_of`.
        """
        arms = [arm for value in wanted.values_of("flip") for arm in self._named(value)]
        others = {arm: self.answers_of(arm) for arm in arms}
        names = [printable(task.name) for task in self.tasks]
        return [q for q in self.questions if wanted.matches(QuestionSubject(q, self.tasks, names, others))]

    def _named(self, value: str) -> Sequence[str]:
        """Return the arms whose name has a value as a part, or the value itself, of which it shall be said."""
        return [arm for arm in self.arms if value.casefold() in arm.casefold()] or [value]


def _read(run: RunDir, split: str) -> tuple[list[Question], list[Task]]:
    questions = read_questions(run, split)
    [tasks] = query(run.database, (TASKS, ()))
    return questions, read_tasks(tasks)


class QuestionSubject:
    """The values of a question by the keys of `accl.store.vocabulary.QUESTIONS`.

    Args:
        names: of the tasks, printable.
        others: answers by arm and question.
    """

    def __init__(
        self,
        question: Question,
        tasks: Sequence[Task],
        names: Sequence[str],
        others: Mapping[str, Mapping[str, Answer]],
    ) -> None:
        self.question, self.tasks, self.names, self.others = question, tasks, names, others

    def get(self, key: str, /) -> Value:
        """Return a value; None where it is not known."""
        question = self.question
        match key:
            case _ if key == WORDS:
                return " ".join((question.text, *question.options))
            case "wrong":
                return not question.right
            case "right":
                return question.right
            case "task":
                return self.names[question.task]
            case "category":
                return self.tasks[question.task].category
            case "id":
                return question.id
            case "p":
                return question.confidence
            case "gold":
                return letter(question.answer)
            case "predicted":
                return letter(question.predicted)
            case "pair":
                nearest = question.neighbours[:1]
                return (self.names[question.task], self.names[nearest[0]]) if nearest else None
            case "flip":
                answers = [(arm, answers.get(question.id)) for arm, answers in self.others.items()]
                return tuple(arm for arm, answer in answers if answer and answer.right != question.right)
        return None
