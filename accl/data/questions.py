"""The type of question that every source produces, and the corpus that holds all questions of a source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from accl.data.subjects import Subject

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The parts that a source can deliver, under MMLU's own names.
PARTS = ("train", "dev", "validation", "test", "auxiliary_train")


def letter(option: int) -> str:
    """Return the letter of an option; its number where the alphabet does not reach."""
    return LETTERS[option] if option < len(LETTERS) else str(option + 1)


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    Attributes:
        id: unique and stable within its source, for example ``test/anatomy/17``.
        task: the subject's name; empty for questions without one (``auxiliary_train``).
        text: the question.
        options: the choices, in the source's order.
        answer: index of the right option.
    """

    id: str
    task: str
    text: str
    options: tuple[str, ...]
    answer: int

    @cached_property
    def text_hash(self) -> str:
        """Return 16 hex digits that equal questions share, whatever their subject or the order of their options.

        White space and case do not count. Questions with equal texts and different options are different.
        """
        joined = "\x1f".join((_normal(self.text), *sorted(map(_normal, self.options))))
        return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """All questions of a source, before a protocol splits them.

    Attributes:
        subjects: the tasks in index order, 0..K-1.
        parts: questions by the source's own parts (a subset of ``PARTS``).
        source: origin of the questions in words, for the provenance.
        revision: commit of a Hub data set; empty elsewhere.
    """

    subjects: tuple[Subject, ...]
    parts: dict[str, list[Question]]
    source: str
    revision: str = ""
    task_index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_index", {s.name: i for i, s in enumerate(self.subjects)})

    @cached_property
    def fingerprint(self) -> str:
        """Return 16 hex digits over every question in order, which equal corpora share."""
        digest = hashlib.blake2b(digest_size=8)
        for part in sorted(self.parts):
            for q in self.parts[part]:
                digest.update("\x1f".join((part, q.id, q.task, q.text, *q.options, str(q.answer))).encode())
        return digest.hexdigest()

    @cached_property
    def conflicts(self) -> list[tuple[Question, Question]]:
        """Pairs of questions that are equal but for their right answer; the first pair of each question."""
        first: dict[str, Question] = {}
        pairs: dict[str, tuple[Question, Question]] = {}
        for questions in self.parts.values():
            for q in questions:
                other = first.setdefault(q.text_hash, q)
                if other is not q and _normal(other.options[other.answer]) != _normal(q.options[q.answer]):
                    pairs.setdefault(q.text_hash, (other, q))
        return list(pairs.values())

    def counts(self, part: str) -> Counter[str]:
        """Count the questions per task in one part."""
        return Counter(q.task for q in self.parts.get(part, ()))


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def number_of_options(questions: Iterable[Question]) -> int:
    """Return the number of options that all questions share, C.

    Raises:
        ValueError: the number differs between questions, or there are none.
    """
    counts = {len(q.options) for q in questions}
    if len(counts) != 1:
        raise ValueError(f"questions with {sorted(counts)} options cannot share one classification head")
    return counts.pop()


def order_subjects(names: Sequence[str]) -> list[str]:
    """Return the names in task order: sorted, so that index t is the same subject in every source."""
    return sorted(set(names))
