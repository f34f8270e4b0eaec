"""The part of a finished run that comparisons use: its setup, and its answers to the questions of a split.

That of ``validation`` is the best one, whose weights are those that are tested.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from accl import config as configuration
from accl.config import Config
from accl.config.renamed import translate_recipe
from accl.errors import AbsentError, AcclError, CompareError, DamagedError
from accl.store.database import Row, Session
from accl.store.deadline import within
from accl.store.merge import merge_spool
from accl.store.provenance import data_fingerprint, read_provenance
from accl.store.reader import (
    TASKS,
    Evaluation,
    Task,
    attached,
    checking,
    group_evaluations,
    read_evals,
    read_meta,
    read_tasks,
)
from accl.store.rundir import RunDir
from accl.store.schema import COLUMNS, TESTED_STEP, VALIDATION_STEP, check_rows
from accl.store.spool import spool_of
from accl.store.state import RunState, State, observe
from accl.store.summary import numbers, reading
from accl.text import listed

Shared = TypeVar("Shared", bound=tuple[Any, ...])

Split = Literal["test", "validation"]

NO_SETTINGS = {"train.seed", "eval.test"}  # keys in which the runs of an arm may differ
TYPED_IDS = 6  # in a command to type
DEADLINE_S = 60.0  # for the answers of one run, from a slow disk
SIMILARITY = "similarity/test"  # no other split has its own
_STEP = {"test": TESTED_STEP, "validation": VALIDATION_STEP}
_DATA_KEYS = ("data.source", "data.path", "data.revision", "data.protocol")


@dataclass(frozen=True)
class Setup:
    """Configuration and data of a run; runs can be paired when their `terms` are equal."""

    run: RunDir
    config: Config
    fingerprint: str

    @property
    def terms(self) -> dict[str, str]:
        """Profile, protocol and data, by name."""
        return {"profile": self.config.profile, "protocol": self.config.data.protocol, "data": self.fingerprint}

    def differs_from(self, other: Setup) -> str:
        """Say in words in which terms the two differ, the other's value first; empty when in none."""
        pairs = ((key, other.terms[key], self.terms[key]) for key in self.terms)
        parts = [f"{key} ({left[:12] or '?'}, {right[:12] or '?'})" for key, left, right in pairs if left != right]
        return listed(parts, "and")

    def train_command(self, recipe: str, than: Setup | None = None) -> str:
        """Return the command that trains ``recipe`` on the terms of this run, where ``than`` has other terms."""
        same_profile = than is not None and than.config.profile == self.config.profile
        changed = configuration.difference(than.config, self.config) if than and same_profile else {}
        values = [shlex.quote(f"{key}={changed[key][1]}") for key in _DATA_KEYS if key in changed]
        return " --set ".join([f"accl train {recipe} --profile {self.config.profile}", *values])


@dataclass(frozen=True)
class Results:
    """Answers of a finished run to the n questions of a split, ordered by their unique ids.

    Attributes:
        tasks: K tasks, in index order.
        task, gold, predicted: (n,) task index, right option, chosen option.
        choices: number of options C of a question.
        evaluation: evaluation of the split; None when it was not recorded, or not asked for.
        similarity: K x K mean positive cosine of the test questions' features (kind `SIMILARITY`), NaN where no pair
            was observed; None when it was not recorded, or not asked for.
    """

    setup: Setup
    state: RunState
    split: Split
    tasks: tuple[Task, ...]
    question_ids: tuple[str, ...]
    task: NDArray[np.int64]
    gold: NDArray[np.int64]
    predicted: NDArray[np.int64]
    choices: int
    evaluation: Evaluation | None
    similarity: NDArray[np.float64] | None
    meta: dict[str, str]

    @property
    def step(self) -> int | None:
        """Step of the weights that answered; None when the run did not record it.

        Raises:
            DamagedError: what it recorded is no number.
        """
        step = self.number(_STEP[self.split])
        return None if step is None else int(step)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return whether each answer is right, shape (n,)."""
        return np.asarray(self.gold == self.predicted)

    def number(self, key: str) -> float | None:
        """Return a number in ``meta``; None when the run did not record it.

        Raises:
            DamagedError: it is no number.
        """
        return numbers(self.meta, (key,)).get(key)


def read_setup(run: RunDir) -> Setup:
    """Read configuration and data fingerprint of a run; a recipe that was renamed gets its name of today.

    Raises:
        DamagedError, AbsentError: the files of the run are damaged or missing.
    """
    with reading(run.path):
        fingerprint = data_fingerprint(read_provenance(run))
        config = run.load_config()
    recipe, _ = translate_recipe(config.recipe)
    return Setup(run, config.model_copy(update={"recipe": recipe}), fingerprint)


class UntestedError(AbsentError):
    """A run that left its test split unread, as ``eval.test: false`` asks."""


def read_all(runs: Sequence[RunDir], split: Split = "test") -> list[Results]:
    """Read the answers of several runs, as `read_results`.

    Raises:
        UntestedError: some of them left the test split unread; it names all of these.
        AcclError: as `read_results`.
    """
    found = read_what_can_be(runs, split)
    for answer in found:
        if isinstance(answer, AcclError):
            raise answer
    return [answer for answer in found if isinstance(answer, Results)]


def read_what_can_be(runs: Sequence[RunDir], split: Split = "test") -> list[Results | AcclError]:
    """Read the answers of several runs, as `read_results`; an error stands for a run that cannot be read.

    Raises:
        UntestedError: some of them left the test split unread; it names all of these.
    """
    found: list[Results | AcclError] = []
    for run in runs:
        try:
            found.append(read_results(run, split=split))
        except AcclError as error:
            found.append(error)
    untested = [run for run, answer in zip(runs, found, strict=True) if isinstance(answer, UntestedError)]
    if untested:
        raise _untested(untested, of=len(runs))
    return found


def _untested(runs: Sequence[RunDir], of: int) -> UntestedError:
    which = f"Run {runs[0].id} has" if of == 1 else f"{len(runs)} of {of} runs have"
    ids = [run.typed for run in runs] if len(runs) <= TYPED_IDS else ["RUN..."]
    return UntestedError(
        f"{which} not been tested, as eval.test=false asks.",
        "Choose by --split validation; then test what is chosen, and what it is compared with: "
        f"accl test {' '.join(ids)}",
    )


def read_results(run: RunDir, *, split: Split = "test", measured: bool = True) -> Results:
    """Read the answers of a finished run, and what was ``measured`` beside them if that is asked for.

    Raises:
        CompareError: the run is not finished.
        UntestedError: its test split is unread, as it was told.
        AbsentError: it has no answers to the split, or a file is missing.
        DamagedError: its files hold what they cannot hold.
        BusyError: another process holds the database, or the disk does not answer.
        RunError: the database has a later schema.
    """
    with reading(run.database), checking(run.database):
        return within(DEADLINE_S, lambda: _read_results(run, split, measured))


def _read_results(run: RunDir, split: Split, measured: bool) -> Results:
    state = observe(run)
    if state.state is not State.FINISHED:
        hint = (
            "Wait for it; see how far it is with: accl runs"
            if state.state.active
            else f"Go on with: accl resume {run.typed}"
        )
        raise CompareError(f"Run {run.id} is {state.state}, not finished.", hint)
    setup = read_setup(run)
    retrain = f"Train it again: {setup.train_command(setup.config.recipe)}"
    merge_spool(run)
    if not (run.database.exists() or spool_of(run.database).exists()):
        raise AbsentError(f"Run {run.id} has no run.duckdb, so no answers to compare.", retrain)
    if not setup.fingerprint:
        raise AbsentError(f"Run {run.id} has no data fingerprint in its provenance.json.", retrain)
    with attached(run.database) as execute:
        meta = read_meta(execute)
        tasks = execute(TASKS)
        columns = ", ".join(COLUMNS["predictions"][:5])
        answers = execute(
            f"SELECT {columns}, len(probabilities) FROM run.predictions WHERE split = ? ORDER BY question_id", split
        )
        evaluations, matrices = _read_measured(execute, meta, split) if measured else ([], [])
    if not answers and split == "test" and not setup.config.eval.test:
        raise _untested([run], of=1)
    if not answers:
        raise AbsentError(f"Run {run.id} has no answers to the {split} split.", retrain)
    check_rows("predictions", [row[:5] for row in answers])
    _, ids, task, gold, predicted, options = zip(*answers, strict=True)
    choices = max((count for count in options if count is not None), default=0)
    if len(set(ids)) != len(ids):
        raise DamagedError(f"Run {run.id} answered some {split} questions more than once.", retrain)
    if not (choices and _within(task, len(tasks)) and _within(gold, choices) and _within(predicted, choices)):
        raise DamagedError(f"Run {run.id} answered with options, or in tasks, that it does not have.", retrain)
    return Results(
        setup=setup,
        state=state,
        split=split,
        tasks=_one_of_equals(tuple(read_tasks(tasks))),
        question_ids=_one_of_equals(ids),
        task=np.asarray(task, np.int64),
        gold=np.asarray(gold, np.int64),
        predicted=np.asarray(predicted, np.int64),
        choices=choices,
        evaluation=evaluations[-1] if evaluations else None,
        similarity=np.asarray(matrices[0][0], float).reshape(len(tasks), len(tasks)) if matrices else None,
        meta=meta,
    )


def _read_measured(execute: Session, meta: dict[str, str], split: Split) -> tuple[list[Evaluation], list[Row]]:
    """Return the evaluations of the weights that answered, and the similarity of tasks on the questions."""
    evaluations = [e for e in group_evaluations(read_evals(execute, meta["schema_version"])) if e.split == split]
    if split != "test":
        return [e for e in evaluations if str(e.step) == meta.get(_STEP[split])], []
    return evaluations, execute("SELECT matrix FROM run.confusion WHERE kind = ? ORDER BY seq DESC LIMIT 1", SIMILARITY)


@lru_cache(maxsize=8)
def _one_of_equals(values: Shared) -> Shared:
    """Return the same object for equal ones: a hundred runs have the same questions, which are compared and kept."""
    return values


def _within(indices: Sequence[int], count: int) -> bool:
    return min(indices) >= 0 and max(indices) < count


def check_pairable(results: Sequence[Results]) -> None:
    """Make sure that all runs answered the same questions under the same terms as the first.

    Raises:
        CompareError: a run differs from the first.
    """
    first = results[0]
    for other in results[1:]:
        if problem := _unpairable(first, other):
            names = f"Runs {first.setup.run.id} and {other.setup.run.id}"
            command = first.setup.train_command(other.setup.config.recipe, than=other.setup)
            raise CompareError(f"{names} {problem}.", f"Train the second like the first: {command}")


def _unpairable(first: Results, other: Results) -> str:
    """Say what keeps the answers of two runs from being paired; empty if nothing does."""
    if terms := other.setup.differs_from(first.setup):
        return f"differ in {terms}, so their answers cannot be paired"
    if other.question_ids != first.question_ids:
        left, right = set(first.question_ids), set(other.question_ids)
        only = f"{len(left - right)} only the first, {len(right - left)} only the second"
        return f"answered different {first.split} questions ({only})"
    if first.tasks != other.tasks or (first.gold != other.gold).any() or (first.task != other.task).any():
        return f"disagree on the tasks or the right answers of the {first.split} questions"
    return ""
