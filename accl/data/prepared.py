"""The questions of a run: loaded, split and put in order, with what is wrong with them.

The launcher and the training process both prepare them, so that what the one would refuse is refused by the other
before there is a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accl.data.cache import Cache
from accl.data.questions import Corpus, Question
from accl.data.sources import load_corpus
from accl.data.splits import Splits, split
from accl.errors import DataError
from accl.text import printable


@dataclass(frozen=True)
class PreparedData:
    """Questions in the order in which positions count, and where each split stands among them.

    Attributes:
        positions: of the questions of train, validation, test and auxiliary, by name.
    """

    corpus: Corpus
    splits: Splits
    questions: list[Question]
    positions: dict[str, NDArray[np.int64]]

    @property
    def task_names(self) -> list[str]:
        """Names of the K tasks, in index order."""
        return [subject.name for subject in self.corpus.subjects]

    @cached_property
    def train_sizes(self) -> NDArray[np.int64]:
        """Number of training questions of each task, K."""
        tasks = [self.corpus.task_index[q.task] for q in self.splits.train]
        return np.bincount(tasks, minlength=len(self.corpus.subjects))

    def warnings(self, questions_per_task: int | None) -> list[str]:
        """Return in words what is doubtful about the questions and does not keep them from being used.

        Args:
            questions_per_task: distinct questions that a batch wants of a task; None where it wants none.
        """
        found = []
        if self.splits.leaked:
            found.append(f"{self.splits.leaked} evaluated questions stand word for word in train (the source's own)")
        if conflicts := self.corpus.conflicts:
            one, other = (printable(q.id) for q in conflicts[0])
            questions = f"{len(conflicts)} question{'s have' if len(conflicts) > 1 else ' has'}"
            found.append(f"{questions} two different right answers, as {one} and {other}")
        if blank := sum(not all(map(str.strip, q.options)) for q in self.splits.auxiliary):
            found.append(f"{blank} auxiliary questions have blank options, which count as options")
        small = np.flatnonzero((self.train_sizes > 0) & (self.train_sizes < (questions_per_task or 0)))
        if len(small):
            example = printable(self.task_names[small[0]])
            found.append(
                f"{len(small)} tasks have fewer training questions than the {questions_per_task} of a task in a batch, "
                f"which repeats them ({example}: {self.train_sizes[small[0]]})"
            )
        return found


def prepare(
    source: str, path: str, revision: str, protocol: str, split_seed: int, cache: Cache | None = None
) -> PreparedData:
    """Load and split the questions that a run's ``data`` section names.

    Args:
        cache: of questions that were read before; None reads them anew.

    Raises:
        DataError, HubError: there are none, one is malformed, or a split is empty.
    """
    corpus = load_corpus(source, path, revision, cache)
    splits = split(corpus, protocol, split_seed)
    for name, part in splits.named().items():
        if not part:
            sizes = ", ".join(f"{other} {len(questions):,}" for other, questions in splits.named().items())
            what = f"The {name} split of {corpus.source} is empty under protocol {protocol} ({sizes})."
            raise DataError(what, "Give more questions of each task, or another data.protocol.")
    questions: list[Question] = []
    positions: dict[str, NDArray[np.int64]] = {}
    for name, part in (*splits.named().items(), ("auxiliary", splits.auxiliary)):
        positions[name] = np.arange(len(questions), len(questions) + len(part))
        questions += part
    return PreparedData(corpus, splits, questions, positions)
