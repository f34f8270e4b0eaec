"""Collecting the rows of a source into a corpus: every row becomes a question or is refused by file and row."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from accl.data.questions import LETTERS, PARTS, Corpus, Question, order_subjects
from accl.data.subjects import subject_named
from accl.errors import DataError
from accl.text import printable

AUXILIARY = "auxiliary_train"
# Parts by the names of files, folders and splits.
PART_OF = {
    "train": "train",
    "dev": "dev",
    "val": "validation",
    "validation": "validation",
    "test": "test",
    AUXILIARY: AUXILIARY,
}
LAYOUTS = (
    "Looked for: test/<subject>_test.csv (also train, dev, val), all/test-*.parquet or test*.parquet (also train, dev, "
    "validation), and a datasets save_to_disk folder."
)
# Limits of a question with its options, and of all questions together: what is beyond would only fill the memory. MMLU
# with its auxiliary questions has 115,700 questions of 160 million characters.
MOST_QUESTION_CHARACTERS = 2**20
MOST_QUESTIONS = 2**20
MOST_CHARACTERS = 2**29
MOST_TASKS = 2000  # whose matrices of all pairs take 0.1 GB


class Place(NamedTuple):
    """A row of a file, counted from 1."""

    path: Path
    row: int

    def refuse(self, what: str, hint: str = "") -> DataError:
        """Return the error that refuses the row."""
        return DataError(f"{self.path}, row {self.row}: {what}.", hint)


@dataclass
class CorpusBuilder:
    """Collects questions and checks them; the number of options is the one that most of them have.

    Args:
        unit: what the options of a row are counted in. others: how many of these are no options.
        hint: what to do about rows that have another number than most.
    """

    unit: str = "options"
    others: int = 0
    hint: str = "All questions of a run need the same number of options."
    _parts: defaultdict[str, list[Question]] = field(default_factory=lambda: defaultdict(list))
    _rows: Counter[str] = field(default_factory=Counter)
    _counts: Counter[int] = field(default_factory=Counter)
    _first_with: dict[int, Place] = field(default_factory=dict)
    _characters: int = 0
    _number: int = 0

    def add(
        self, place: Place, part: str, task: str, group: str, text: str, options: Sequence[str], answer: int
    ) -> None:
        """Add one question.

        Args:
            group: prefix of the id, which is numbered within it: ``test/anatomy`` gives ``test/anatomy/0`` and so on.

        Raises:
            DataError: the row is malformed.
        """
        count = len(options)
        if not 2 <= count <= len(LETTERS):
            raise place.refuse(f"{count} options instead of 2 to {len(LETTERS)}")
        if not 0 <= answer < count:
            raise place.refuse(f"answer {answer} is outside 0..{count - 1}")
        self._check_texts(place, part, task, text, options)
        self._counts[count] += 1
        self._first_with.setdefault(count, place)
        self._parts[part].append(Question(f"{group}/{self._rows[group]}", task, text, tuple(options), answer))
        self._rows[group] += 1

    def corpus(self, folder: Path, source: str, revision: str = "") -> Corpus:
        """Make the corpus of all questions added.

        Raises:
            DataError: none has a subject, there are too many subjects, or two that read alike, or some questions have
                another number of options than most.
        """
        names = order_subjects([q.task for questions in self._parts.values() for q in questions if q.task])
        if not names:
            raise DataError(f"{folder} holds no question with a subject.", LAYOUTS)
        if len(names) > MOST_TASKS:
            raise DataError(
                f"{folder} has {len(names):,} subjects, more than {MOST_TASKS:,}.", "Is it the right column?"
            )
        spelled: dict[str, str] = {}
        for name in names:
            if (other := spelled.setdefault(_spelling(name), name)) != name:
                what = f"{folder} has two subjects of one name: {printable(repr(other))} and {printable(repr(name))}."
                raise DataError(what, "They would be two tasks. Rename one, or move it away.")
        self._check_counts()
        parts = {part: self._parts[part] for part in PARTS if part in self._parts}
        return Corpus(tuple(subject_named(name) for name in names), parts, printable(source), revision)

    def _check_texts(self, place: Place, part: str, task: str, text: str, options: Sequence[str]) -> None:
        joined = "".join((text, *options))
        self._characters += len(joined)
        self._number += 1
        if len(joined) > MOST_QUESTION_CHARACTERS:
            raise place.refuse(f"the question and its options have more than {MOST_QUESTION_CHARACTERS:,} characters")
        if self._characters > MOST_CHARACTERS or self._number > MOST_QUESTIONS:
            most = f"{MOST_QUESTIONS:,} questions or {MOST_CHARACTERS:,} characters"
            raise place.refuse(f"with this row there are more than {most}", "Take fewer questions.")
        if "\0" in joined:
            raise place.refuse("a NUL character in the question or an option", "Save the file as text, in UTF-8.")
        # Auxiliary questions may lack a text: they are never tested, and their other texts still teach.
        if part != AUXILIARY and not (text.strip() and all(map(str.strip, options))):
            raise place.refuse(*_blank(task, text, options))

    def _check_counts(self) -> None:
        # On a tie MMLU's four, else fewer: a comma that is not quoted makes one more.
        most = max(self._counts, key=lambda count: (self._counts[count], count == 4, -count))
        for count, place in self._first_with.items():
            if count != most:
                share = f"{self._counts[most]:,} of {self._counts.total():,} rows"
                raise place.refuse(
                    f"{count + self.others} {self.unit} instead of {most + self.others}, which {share} have",
                    self.hint,
                )


def _spelling(name: str) -> str:
    """Return what names that read alike have in common: case, width and blanks left out."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def _blank(task: str, text: str, options: Sequence[str]) -> tuple[str, str]:
    """Return what is blank in a question, and what to do."""
    if not text.strip():
        return "the question is empty", ""
    blank = [letter for letter, option in zip(LETTERS, options, strict=False) if not option.strip()]
    hint = "Give every option a text."
    if blank == list(LETTERS[len(options) - len(blank) : len(options)]):
        hint = f"If {task} has questions of fewer options, move them to a data folder of their own, without the blanks:"
        hint += " all questions of a run need the same number."
    return f"option {', '.join(blank)} is blank", hint
