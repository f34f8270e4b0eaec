"""Packed sequences as chunks of like length, in which attention is a product of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

# A sequence joins a chunk if it is at least this share of the chunk's longest: shorter ones would be mostly padding.
LEAST_SHARE = 0.7
# Chunks of fewer tokens than this take shorter sequences too: many chunks are many small operations.
LEAST_TOKENS = 512


@dataclass(frozen=True)
class Chunk:
    """Sequences that share one length.

    Attributes:
        sequences, length: n and L. first: row of its first token among the P rows of all chunks.
        lengths_n: lengths of the sequences without padding.
    """

    sequences: int
    length: int
    first: int
    lengths_n: Ints

    @property
    def rows(self) -> int:
        """Number of rows, padding included."""
        return self.sequences * self.length

    def block(self, x_VC: Tensor, heads: int) -> Tensor:
        """Return the view of this chunk's vectors, H n x L x Dh, in those of all chunks."""
        own = x_VC[heads * self.first : heads * (self.first + self.rows)]
        return own.view(heads * self.sequences, self.length, -1)


class Chunks:
    """The sequences of a stream, cut into chunks.

    The vectors of all chunks are P H x Dh: those of one chunk after the other, H x n x L of each.

    Args:
        lengths_N: lengths of the sequences in the order of the stream, longest first.

    Attributes:
        tokens, longest: T, and the length of the longest sequence. position_T: position of each token in its sequence.
    """

    def __init__(self, lengths_N: Ints) -> None:
        begin_N = np.cumsum(lengths_N) - lengths_N
        self.tokens, self.longest = int(lengths_N.sum()), int(lengths_N[0])
        self.position_T = torch.from_numpy(np.arange(self.tokens) - np.repeat(begin_N, lengths_N))
        self._chunks: list[Chunk] = []
        self._tokens: list[Ints] = []  # of each chunk's rows; that of padding is the last one of its sequence
        self._valid: list[NDArray[np.bool_]] = []
        rows = 0
        for first, end in cut(lengths_N):
            chunk = Chunk(end - first, int(lengths_N[first]), rows, lengths_N[first:end])
            position = np.arange(chunk.length)
            self._chunks.append(chunk)
            self._tokens.append(
                (begin_N[first:end, None] + np.minimum(position, lengths_N[first:end, None] - 1)).ravel()
            )
            self._valid.append((position < lengths_N[first:end, None]).ravel())
            rows += chunk.rows
        self._indices: dict[tuple[int, ...], Tensor] = {}
        self._masks: dict[tuple[int, int, int | None, torch.dtype], Tensor | None] = {}

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks)

    def spread(self, x_THC: Tensor) -> Tensor:
        """Return the vectors of all chunks, those of padding being copies of others.

        Args:
            x_THC: tokens, T x H x Dh, with contiguous channels and any other strides.
        """
        _, heads, channels = x_THC.shape
        strides, extent = x_THC.stride(), 0
        assert strides[2] == 1
        assert all(stride % channels == 0 for stride in strides[:2])
        key = (heads, strides[0] // channels, strides[1] // channels)
        if key not in self._indices:
            of_heads = np.arange(heads)[:, None] * key[2]
            parts = [(of_heads + token * key[1]).ravel() for token in self._tokens]
            self._indices[key] = torch.from_numpy(np.concatenate(parts))
        extent = 1 + (self.tokens - 1) * key[1] + (heads - 1) * key[2]
        return x_THC.as_strided((extent, channels), (channels, 1)).index_select(0, self._indices[key])

    def gather(self, x_VC: Tensor, heads: int) -> Tensor:
        """Return the tokens, T x H x Dh, of the vectors of all chunks."""
        if (heads,) not in self._indices:
            parts = [
                (heads * chunk.first + np.flatnonzero(valid))[:, None] + np.arange(heads) * chunk.rows
                for chunk, valid in zip(self._chunks, self._valid, strict=True)
            ]
            self._indices[heads,] = torch.from_numpy(np.concatenate(parts).ravel())
        return x_VC.index_select(0, self._indices[heads,]).view(self.tokens, heads, -1)

    def clear_padding(self, x_VC: Tensor, heads: int) -> Tensor:
        """Set the vectors of padding to 0 in place."""
        if (heads, 0) not in self._indices:
            parts = [
                ((heads * chunk.first + np.flatnonzero(~valid))[:, None] + np.arange(heads) * chunk.rows).ravel()
                for chunk, valid in zip(self._chunks, self._valid, strict=True)
            ]
            self._indices[heads, 0] = torch.from_numpy(np.concatenate(parts))
        padding = self._indices[heads, 0]
        return x_VC.index_fill_(0, padding, 0) if len(padding) else x_VC

    def mask(self, chunk: Chunk, heads: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores of a chunk, H n x 1 or L x L: 0, or -inf where a query sees no key.

        Args:
            window: distance up to which tokens see each other; None for all of a sequence.

        Returns:
            None if every query sees every key.
        """
        key = (chunk.first, heads, window, dtype)
        if key not in self._masks:
            position = np.arange(chunk.length)
            visible = (position < chunk.lengths_n[:, None])[:, None]
            if window is not None and window < chunk.length - 1:
                # Padding sees itself, because a row of scores needs one that is finite.
                distance = np.abs(position[:, None] - position)
                visible = (visible & (distance <= window)) | (distance == 0)
            added = torch.from_numpy(np.where(visible, 0, -np.inf)).to(dtype)
            self._masks[key] = None if visible.all() else added.repeat(heads, 1, 1)
        return self._masks[key]


def cut(lengths_N: Ints) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of the sequences of each chunk; lengths: longest first."""
    first = 0
    for at in range(1, len(lengths_N) + 1):
        if at == len(lengths_N) or (
            lengths_N[at] < LEAST_SHARE * lengths_N[first] and lengths_N[first:at].sum() >= LEAST_TOKENS
        ):
            yield first, at
            first = at
