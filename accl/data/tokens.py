"""Questions as token ids: one int32 blob with offsets, made once per corpus and tokenizer, and batches cut from it.

The text of a question and each of its options are tokenised separately, so that options can be shuffled and inputs
truncated without tokenising again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accl.data.cache import Cache
from accl.data.questions import LETTERS, Question, number_of_options
from accl.data.tokenizer import Tokenizer

Ints = NDArray[np.int64]
# Lengths of all parts of the questions, and their ids one after the other.
Pieces = tuple[NDArray[np.int32], NDArray[np.int32]]

# Version of the stored format; raising it makes old caches unused.
FORMAT = 2
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
    offsets: Ints
    letters: list[list[int]]
    task: Ints
    answer: Ints
    text_id: Ints
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

    chunks: list[tuple[Ints, Ints]]
    inverse_perm: Ints
    task: Ints
    answer: Ints
    text_id: Ints


def tokenise(
    questions: Sequence[Question], task_index: dict[str, int], tokenizer: Tokenizer, cache: Cache | None = None
) -> TokenBlob:
    """Tokenise questions, or load them from ``cache`` if the same ones were tokenised before.

    Args:
        questions: in the order of the blob's positions.
        task_index: task name -> index; a question of another task gets -1.
        cache: of the blobs, which are named by content; None does not cache.

    Raises:
        ValueError: the questions differ in their number of options.
    """
    choices = number_of_options(questions)
    task = np.array([task_index.get(q.task, -1) for q in questions], np.int64)
    answer = np.array([q.answer for q in questions], np.int64)
    text_id = np.array([int(q.text_hash, 16) >> 1 for q in questions], np.int64)
    letters = tokenizer.encode_many([f"{LETTERS[c]}." for c in range(choices)])
    parts = [part for q in questions for part in (q.text, *q.options)]

    def make() -> Pieces:
        pieces = tokenizer.encode_many(parts)
        lengths = np.array([len(piece) for piece in pieces], np.int32)
        return lengths, np.fromiter((i for piece in pieces for i in piece), np.int32, count=int(lengths.sum()))

    def decode(content: bytes) -> Pieces:
        numbers = np.frombuffer(content, np.int32)
        lengths, ids = np.split(numbers, [len(parts)])
        if len(lengths) != len(parts) or lengths.sum() != len(ids):
            raise ValueError("does not hold the tokens of these questions")
        return lengths, ids

    if cache is None:
        lengths, ids = make()
    else:
        name = f"tokens-{_content_key(questions, tokenizer)}"
        lengths, ids = cache.load_or_make(name, make, lambda pieces: np.concatenate(pieces).tobytes(), decode)
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenBlob(ids, offsets, letters, task, answer, text_id, choices)


class Assembler:
    """Assembles encoder inputs as segments of one array of tokens.

    ``single_sequence``: [CLS] question [SEP] A. option B. option ... [SEP].
    ``per_option``: [CLS] question [SEP] option [SEP], one row per option.

    An input longer than ``max_length`` loses the beginning of its question first, because MMLU asks at the end of long
    passages; the question keeps at least a quarter of the length, and options share the rest.

    Args:
        chunk_rows: rows of a chunk, if sorting rows by length and cutting them into chunks saves enough padding; None
            never cuts. Neither changes what the encoder computes for a row.

    Attributes:
        tokens: all tokens that inputs are made of, int32.
    """

    def __init__(
        self, blob: TokenBlob, tokenizer: Tokenizer, head: str, max_length: int, chunk_rows: int | None = None
    ) -> None:
        self.blob, self.head, self.max_length, self.chunk_rows = blob, head, max_length, chunk_rows
        self.cls_id, self.sep_id, self.pad_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id
        added = [self.cls_id, self.sep_id, *(i for letter in blob.letters for i in letter)]
        self.tokens = np.append(blob.ids, np.array(added, np.int32))
        self._letter_length = np.array([len(letter) for letter in blob.letters] if head == "single_sequence" else [0])
        self._part_length = np.diff(blob.offsets)
        # The segments of an input without its text and options: [CLS], [SEP], letters, [SEP].
        letter_at = len(blob.ids) + 2 + np.cumsum(self._letter_length) - self._letter_length
        self._start = np.full(4 + 2 * len(letter_at), len(blob.ids) + 1)
        self._start[0], self._start[3:-1:2] = len(blob.ids), letter_at

    def segments(self, questions: Ints, option_order: Ints | None = None) -> tuple[Ints, Ints, tuple[Ints, Ints, Ints]]:
        """Locate the inputs of B questions, N rows of S segments, in ``tokens``.

        Returns:
            first index and length of every segment, N x S each, and the labels of `Batch`: task, answer, text id.
        """
        blob, lengths = self.blob, self._part_length
        if option_order is None:
            option_order = np.tile(np.arange(blob.choices), (len(questions), 1))
        answer = (option_order == blob.answer[questions][:, None]).argmax(1)
        base = questions * (1 + blob.choices)
        parts = base[:, None] + 1 + option_order
        if self.head == "per_option":
            base, parts = base.repeat(blob.choices), parts.reshape(-1, 1)
        text, text_length = blob.offsets[base], lengths[base]
        shown = lengths[parts] + self._letter_length
        limit = self.max_length - 3
        for row in (text_length + shown.sum(1) > limit).nonzero()[0]:
            kept = min(text_length[row], max(limit - shown[row].sum(), limit // 4))
            text[row] += text_length[row] - kept
            text_length[row] = kept
            shown[row] = np.minimum(shown[row], truncate_evenly(shown[row].tolist(), limit - kept))
        start = np.empty((len(base), len(self._start)), np.int64)
        length = np.ones_like(start)
        start[:] = self._start
        start[:, 1], length[:, 1] = text, text_length
        letters = np.minimum(shown, self._letter_length)
        length[:, 3:-1:2] = letters
        start[:, 4:-1:2], length[:, 4:-1:2] = blob.offsets[parts], shown - letters
        return start, length, (blob.task[questions], answer, blob.text_id[questions])

    def batch(self, questions: Ints, option_order: Ints | None = None) -> Batch:
        """Assemble the input of questions, with their options in the given order; without one, in their own."""
        start, length, labels = self.segments(questions, option_order)
        lengths, size, perm = length.sum(1), len(start), np.arange(len(start))
        if self.chunk_rows is not None and lengths.max() * size > WORTH_CUTTING * lengths.sum():
            size, perm = self.chunk_rows, np.argsort(lengths, kind="stable")
        parts = [perm[at : at + size] for at in range(0, len(perm), size)]
        chunks = [self._padded(start[rows], length[rows]) for rows in parts]
        return Batch(chunks, np.argsort(perm), *labels)

    def used_tokens(self) -> Ints:
        """Return every token id that an input can hold, once each."""
        return np.unique(np.append(self.tokens, self.pad_id)).astype(np.int64)

    def lengths(self, questions: Ints) -> Ints:
        """Return the length in tokens of the longest row of each question."""
        _, length, _ = self.segments(questions)
        longest: Ints = length.sum(1).reshape(len(questions), -1).max(1)
        return longest

    def _padded(self, start: Ints, length: Ints) -> tuple[Ints, Ints]:
        lengths = length.sum(1)
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, np.int64)
        begin = np.cumsum(length) - length.ravel()
        ids[mask] = self.tokens[np.repeat(start.ravel() - begin, length.ravel()) + np.arange(length.sum())]
        return ids, mask.astype(np.int64)


def truncate_evenly(lengths: Sequence[int], limit: int) -> int:
    """Return the length to cut options to so that all fit into ``limit``; what short ones leave goes to long ones."""
    for rest, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        if length * rest > limit:
            return limit // rest
        limit -= length
    return max(lengths)


def _content_key(questions: Sequence[Question], tokenizer: Tokenizer) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{sys.byteorder}:{tokenizer.fingerprint}".encode(), digest_size=12)
    for q in questions:
        digest.update("\x1f".join((q.text, *q.options, "\x1e")).encode())
    return digest.hexdigest()
