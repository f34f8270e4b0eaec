"""Questions as token ids: one int32 blob with offsets, made once per corpus and tokenizer, and batches cut from it.

The text of a question and each of its options are tokenised separately, so that options can be shuffled and inputs
truncated without tokenising again.
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

# Version of the stored format; raising it makes old caches unused.
FORMAT = 1
# Padded tokens per real token above which cutting a batch into chunks by length is faster.
WORTH_CUTTING = 1.25


@dataclass(frozen=True)
class TokenBlob:
    """N tokenised questions of C options.

    Attributes:
        ids: token ids of all parts, concatenated, without special tokens.
        offsets: N x (1 + C) + 1 positions in ``ids``: question, option 0, ..., option C-1 of each.
        letters: ids of "A.", "B.", ... for inputs with all options.
        task: task index of each question, -1 for none. answer: index of the right option.
        text_id: an id that equal texts share.
        choices: options of a question, C.
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
        """Return the ids of one part of a question: part 0 is its text, part 1 + c its option c."""
        at = question * (1 + self.choices) + part
        return self.ids[self.offsets[at] : self.offsets[at + 1]]


@dataclass(frozen=True)
class Batch:
    """Encoder input for B questions: N rows, in right-padded chunks of rows of similar length.

    N is B for ``single_sequence`` and B * C for ``per_option``.

    Attributes:
        chunks: (ids, mask) of some of the rows, both n x L; L differs between chunks.
        inverse_perm: index, among the rows of all chunks together, of each row of the batch, N.
        task, answer, text_id: task index, right option in the order shown, and id that equal texts share, B.
    """

    chunks: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    inverse_perm: NDArray[np.int64]
    task: NDArray[np.int64]
    answer: NDArray[np.int64]
    text_id: NDArray[np.int64]


def tokenise(
    questions: Sequence[Question], task_index: dict[str, int], tokenizer: Tokenizer, cache: Path | None = None
) -> TokenBlob:
    """Tokenise questions, or load them from ``cache`` if the same ones were tokenised before.

    Args:
        questions: in the order of the blob's positions.
        task_index: task name -> index; a question of another task gets -1.
        cache: folder of blobs, which are named by content; None does not cache.

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
    """Assembles encoder inputs from a blob.

    ``single_sequence``: [CLS] question [SEP] A. option B. option ... [SEP].
    ``per_option``: [CLS] question [SEP] option [SEP], one row per option.

    An input longer than ``max_length`` loses the beginning of its question first, because MMLU asks at the end of long
    passages; the question keeps at least a quarter of the length, and options share the rest.

    Args:
        chunk_rows: rows of a chunk, if sorting rows by length and cutting them into chunks saves enough padding; None
            never cuts. Neither changes what the encoder computes for a row.
    """

    def __init__(
        self, blob: TokenBlob, tokenizer: Tokenizer, head: str, max_length: int, chunk_rows: int | None = None
    ) -> None:
        self.blob, self.head, self.max_length, self.chunk_rows = blob, head, max_length, chunk_rows
        self.cls_id, self.sep_id, self.pad_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id

    def batch(self, questions: NDArray[np.int64], option_order: NDArray[np.int64] | None = None) -> Batch:
        """Assemble the input of questions, with their options in the given order; without one, in their own."""
        blob = self.blob
        if option_order is None:
            option_order = np.tile(np.arange(blob.choices), (len(questions), 1))
        rows: list[list[int]] = []
        for question, order in zip(questions, option_order, strict=True):
            rows += self._rows(int(question), order)
        chunks, inverse_perm = self._chunks(rows)
        # Index of the right option in the order shown.
        answer = np.argmax(option_order == blob.answer[questions][:, None], axis=1)
        return Batch(chunks, inverse_perm, blob.task[questions], answer, blob.text_id[questions])

    def used_tokens(self) -> NDArray[np.int64]:
        """Return every token id that an input can hold, once each."""
        added = [self.cls_id, self.sep_id, self.pad_id, *(i for letter in self.blob.letters for i in letter)]
        return np.unique(np.concatenate([self.blob.ids, added])).astype(np.int64)

    def lengths(self, questions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the length in tokens of the longest row of each question."""
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
        limit = self.max_length - 3
        needed = sum(map(len, options))
        if len(text) + needed > limit:
            text = text[-max(limit - needed, limit // 4) :]
            cut = truncate_evenly([len(option) for option in options], limit - len(text))
            options = [option[:cut] for option in options]
        return [self.cls_id, *text, self.sep_id, *(i for option in options for i in option), self.sep_id]


def truncate_evenly(lengths: Sequence[int], limit: int) -> int:
    """Return the length to cut options to so that all fit into ``limit``; what short ones leave goes to long ones."""
    for rest, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        if length * rest > limit:
            return limit // rest
        limit -= length
    return max(lengths)


def _content_key(questions: Sequence[Question], tokenizer: Tokenizer) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{tokenizer.fingerprint}".encode(), digest_size=12)
    for q in questions:
        digest.update("\x1f".join((q.text, *q.options, "\x1e")).encode())
    return digest.hexdigest()


def _save(file: Path, **arrays: NDArray[np.generic]) -> None:
    """Write to a temporary file and rename it, so that no other process reads it half-written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
