"""Questions as token ids: one int32 blob with offsets, made once per corpus and tokenizer, and batches cut from it.

The text of a question and each of its options are tokenised by themselves, so that options can be shuffled and
inputs truncated without touching text again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.data.questions import LETTERS, Question, number_of_options
from accl.data.tokenizer import Tokenizer

# Raise it when what is stored changes: old caches are then made anew.
FORMAT = 1
# Padded tokens per real one from which cutting a batch into chunks by length pays.
WORTH_CUTTING = 1.25


@dataclass(frozen=True)
class TokenBlob:
    """N tokenised questions of C options.

    Attributes:
        ids: all token ids, one after the other, without special tokens.
        offsets: N x (1 + C) + 1 positions in ``ids``: question, option 0, ..., option C-1 of each.
        letters: ids of "A.", "B.", ... for an input that shows all options.
        task: task index of each question, -1 for none. answer: index of the right option.
        text_id: an id that equal texts share.
        choices: C.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    letters: list[list[int]]
    task: NDArray[np.int64]
    answer: NDArray[np.int64]
    text_id: NDArray[np.int64]
    choices: int

    def __len__(self) -> int:
        return len(self.task)

    def segment(self, question: int, part: int) -> NDArray[np.int32]:
        """Ids of one part of a question: 0 its text, 1 + c its option c."""
        at = question * (1 + self.choices) + part
        return self.ids[self.offsets[at] : self.offsets[at + 1]]


@dataclass(frozen=True)
class Batch:
    """Encoder input for B questions: N rows, in right-padded chunks of rows of like length.

    N is B for ``single_sequence`` and B * C for ``per_option``.

    Attributes:
        chunks: (ids, mask) of some rows each, both n x L with an L of their own.
        inverse_perm: index, among the rows of all chunks together, of each row of the batch, N.
        task, answer, text_id: B; ``answer`` counts in the order in which the options are shown.
    """

    chunks: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    inverse_perm: NDArray[np.int64]
    task: NDArray[np.int64]
    answer: NDArray[np.int64]
    text_id: NDArray[np.int64]


def tokenise(
    questions: Sequence[Question], task_index: dict[str, int], tokenizer: Tokenizer, cache: Path | None = None
) -> TokenBlob:
    """Tokenise questions, or read them from ``cache`` when the same ones were tokenised before.

    Args:
        questions: in the order in which positions count.
        task_index: task name -> index; a question of another task gets -1.
        cache: folder for blobs, named by content; None keeps nothing.

    Raises:
        ValueError: the questions differ in their number of options.
    """
    choices = number_of_options(questions)
    task = np.array([task_index.get(q.task, -1) for q in questions], np.int64)
    answer = np.array([q.answer for q in questions], np.int64)
    text_id = np.array([int(q.text_hash, 16) >> 1 for q in questions], np.int64)
    letters = tokenizer.encode_many([f"{LETTERS[c]}." for c in range(choices)])
    file = None if cache is None else cache / f"tokens-{_content_key(questions, tokenizer)}.npz"
    if file is not None and file.is_file():
        with np.load(file) as stored:
            return TokenBlob(stored["ids"], stored["offsets"], letters, task, answer, text_id, choices)
    pieces = tokenizer.encode_many([part for q in questions for part in (q.text, *q.options)])
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    ids = np.fromiter((i for piece in pieces for i in piece), np.int32, count=int(offsets[-1]))
    if file is not None:
        _save(file, ids=ids, offsets=offsets)
    return TokenBlob(ids, offsets, letters, task, answer, text_id, choices)


class Assembler:
    """Cuts encoder inputs from a blob.

    ``single_sequence``: [CLS] question [SEP] A. option B. option ... [SEP].
    ``per_option``: [CLS] question [SEP] option [SEP], one row per option.

    What is longer than ``max_length`` loses the beginning of its question first, because MMLU asks at the end of
    long passages; a quarter of the room stays the question's, and options share the rest.

    Args:
        chunk_rows: rows of a chunk, where sorting rows by length and cutting them into chunks saves enough padding;
            None never cuts. The encoder computes the same either way.
    """

    def __init__(
        self, blob: TokenBlob, tokenizer: Tokenizer, head: str, max_length: int, chunk_rows: int | None = None
    ) -> None:
        self.blob, self.head, self.max_length, self.chunk_rows = blob, head, max_length, chunk_rows
        self.cls_id, self.sep_id, self.pad_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id

    def batch(self, questions: NDArray[np.int64], option_order: NDArray[np.int64] | None = None) -> Batch:
        """The input of some questions, with their options in the given order (default: as they are)."""
        blob = self.blob
        if option_order is None:
            option_order = np.tile(np.arange(blob.choices), (len(questions), 1))
        rows: list[list[int]] = []
        for question, order in zip(questions, option_order, strict=True):
            rows += self._rows(int(question), order)
        chunks, inverse_perm = self._chunks(rows)
        # The right answer's place among the options as shown.
        answer = np.argmax(option_order == blob.answer[questions][:, None], axis=1)
        return Batch(chunks, inverse_perm, blob.task[questions], answer, blob.text_id[questions])

    def used_tokens(self) -> NDArray[np.int64]:
        """Every token id that an input can hold, without repetition."""
        own = [self.cls_id, self.sep_id, self.pad_id, *(i for letter in self.blob.letters for i in letter)]
        return np.unique(np.concatenate([self.blob.ids, own])).astype(np.int64)

    def lengths(self, questions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the longest row of each question: to put questions of like length together."""
        order = np.arange(self.blob.choices)
        return np.array([max(len(row) for row in self._rows(int(q), order)) for q in questions], np.int64)

    def _chunks(
        self, rows: list[list[int]]
    ) -> tuple[list[tuple[NDArray[np.int64], NDArray[np.int64]]], NDArray[np.int64]]:
        lengths = np.array([len(row) for row in rows])
        size, perm = len(rows), np.arange(len(rows))
        if self.chunk_rows is not None and lengths.max() * size > WORTH_CUTTING * lengths.sum():
            size, perm = self.chunk_rows, np.argsort(lengths, kind="stable")
        chunks = [self._padded([rows[i] for i in perm[at : at + size]]) for at in range(0, len(rows), size)]
        return chunks, np.argsort(perm)

    def _padded(self, rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return ids, mask

    def _rows(self, question: int, order: NDArray[np.int64]) -> list[list[int]]:
        text = self.blob.segment(question, 0).tolist()
        options = [self.blob.segment(question, 1 + int(c)).tolist() for c in order]
        if self.head == "per_option":
            return [self._row(text, [option]) for option in options]
        shown = [letter + option for letter, option in zip(self.blob.letters, options, strict=True)]
        return [self._row(text, shown)]

    def _row(self, text: list[int], options: list[list[int]]) -> list[int]:
        room = self.max_length - 3
        needed = sum(map(len, options))
        if len(text) + needed > room:
            text = text[-max(room - needed, room // 4) :]
            cut = truncate_evenly([len(option) for option in options], room - len(text))
            options = [option[:cut] for option in options]
        return [self.cls_id, *text, self.sep_id, *(i for option in options for i in option), self.sep_id]


def truncate_evenly(lengths: Sequence[int], room: int) -> int:
    """The length to cut options to so that together they fit: what short ones leave over goes to long ones."""
    for rest, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        if length * rest > room:
            return room // rest
        room -= length
    return max(lengths)


def _content_key(questions: Sequence[Question], tokenizer: Tokenizer) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{tokenizer.fingerprint}".encode(), digest_size=12)
    for q in questions:
        digest.update("\x1f".join((q.text, *q.options, "\x1e")).encode())
    return digest.hexdigest()


def _save(file: Path, **arrays: NDArray[np.generic]) -> None:
    """Write aside and rename: two runs that start together must not read each other's half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}.partial")
    try:
        with open(aside, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
