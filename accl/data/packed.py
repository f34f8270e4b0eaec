"""Encoder inputs as segments of one array of tokens, which stays on the device: a step sends a few hundred numbers.

The sequences are those of `accl.data.tokens.Assembler`, end to end without padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accl.data.tokens import Assembler, truncate_evenly

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """N packed sequences of B questions: N is B, or B * C with one option in each.

    Attributes:
        source: first index in `Packer.tokens` of each of S segments.
        cu_seqlens: cumulative lengths of the segments, S + 1: where each begins among the packed tokens.
        perm: index, in the order of the questions, of each packed sequence, N. inverse_perm: its inverse.
        task, answer, text_id: B; as in `accl.data.tokens.Batch`.
    """

    source: Ints
    cu_seqlens: Ints
    inverse_perm: Ints
    perm: Ints
    task: Ints
    answer: Ints
    text_id: Ints

    @property
    def total(self) -> int:
        """Number of tokens of all sequences."""
        return int(self.cu_seqlens[-1])


class Packer:
    """Locates the segments of encoder inputs in one array of tokens.

    Attributes:
        tokens: all tokens that inputs are made of, int32; copied to the device once.
        segments: number of segments of one sequence.
    """

    def __init__(self, assembler: Assembler) -> None:
        blob = self._blob = assembler.blob
        self._single, self._max_length = assembler.head == "single_sequence", assembler.max_length
        letters = blob.letters if self._single else [[]]
        self._letter_length = np.array([len(letter) for letter in letters])
        ends = np.array([assembler.cls_id, assembler.sep_id], np.int32)
        spelt = [np.array(letter, np.int32) for letter in letters]
        self.tokens = np.concatenate([blob.ids, ends, *spelt])
        self._cls = len(blob.ids)
        self._letter_at = self._cls + 2 + np.cumsum([0, *self._letter_length[:-1]])
        self.segments = 4 + 2 * len(letters)

    @property
    def sequences_per_question(self) -> int:
        """Sequences that a question is packed as."""
        return 1 if self._single else self._blob.choices

    def pack(self, questions: Ints, option_order: Ints | None = None) -> Packed:
        """Pack questions, with their options in the given order; without one, in their own."""
        blob, size = self._blob, len(questions)
        if option_order is None:
            option_order = np.tile(np.arange(blob.choices), (size, 1))
        base = questions * (1 + blob.choices)
        parts = base[:, None] + 1 + option_order
        if not self._single:  # one sequence per option
            base, parts = np.repeat(base, blob.choices), parts.reshape(-1, 1)
        text, text_length = blob.offsets[base], blob.offsets[base + 1] - blob.offsets[base]
        option, option_length = blob.offsets[parts], blob.offsets[parts + 1] - blob.offsets[parts]
        shown = option_length + self._letter_length
        limit = self._max_length - 3
        for row in np.flatnonzero(text_length + shown.sum(1) > limit):
            kept = min(text_length[row], max(limit - shown[row].sum(), limit // 4))
            text[row] += text_length[row] - kept
            text_length[row] = kept
            shown[row] = np.minimum(shown[row], truncate_evenly(shown[row].tolist(), limit - kept))

        rows, options = len(base), parts.shape[1]
        source = np.empty((rows, self.segments), np.int64)
        length = np.ones((rows, self.segments), np.int64)
        source[:, 0] = self._cls
        source[:, 1], length[:, 1] = text, text_length
        source[:, [2, -1]] = self._cls + 1
        letter_length = np.minimum(shown, self._letter_length)
        source[:, 3:-1:2], length[:, 3:-1:2] = np.broadcast_to(self._letter_at, (rows, options)), letter_length
        source[:, 4:-1:2], length[:, 4:-1:2] = option, shown - letter_length
        # Longest first: workers that take sequences in this order end with short ones, and so at about the same time.
        perm = np.argsort(-length.sum(1), kind="stable")
        source, length = source[perm], length[perm]
        cu_seqlens = np.zeros(source.size + 1, np.int64)
        np.cumsum(length.ravel(), out=cu_seqlens[1:])
        answer = np.argmax(option_order == blob.answer[questions][:, None], axis=1)
        return Packed(
            source.ravel(), cu_seqlens, np.argsort(perm), perm, blob.task[questions], answer, blob.text_id[questions]
        )
