"""Encoder inputs as segments of one array of tokens, which stays on the device: a step sends a few hundred numbers.

The sequences are those of `accl.data.tokens.Assembler`, end to end without padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accl.data.tokens import Assembler, Ints


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

    @property
    def longest(self) -> int:
        """Number of tokens of the longest sequence, which is the first."""
        return int(self.cu_seqlens[len(self.source) // len(self.perm)])


class Packer:
    """Packs the rows of an assembler.

    Attributes:
        tokens: all tokens that inputs are made of, int32; copied to the device once.
        sequences_per_question: sequences that a question is packed as. segments: number of segments of one sequence.
    """

    def __init__(self, assembler: Assembler) -> None:
        self._assembler, self.tokens = assembler, assembler.tokens
        single = assembler.head == "single_sequence"
        self.sequences_per_question = 1 if single else assembler.blob.choices
        self.segments = 4 + 2 * (assembler.blob.choices if single else 1)

    def pack(self, questions: Ints, option_order: Ints | None = None) -> Packed:
        """Pack questions, with their options in the given order; without one, in their own."""
        start, length, labels = self._assembler.segments(questions, option_order)
        # Longest first: workers that take sequences in this order end with short ones, and so at about the same time.
        perm = (-length.sum(1)).argsort(kind="stable")
        cu_seqlens = np.zeros(length.size + 1, np.int64)
        length.take(perm, 0).cumsum(out=cu_seqlens[1:])
        return Packed(start.take(perm, 0).ravel(), cu_seqlens, perm.argsort(), perm, *labels)
