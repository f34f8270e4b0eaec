"""The contract of what an encoder on packed sequences does other than token by token, and its plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Distances:
    """Terms of scores that depend on distance: i - j of query i and key j is at index i - j + L - 1.

    L is the length of the longest sequence; see `accl.kernels.layers.attention` for the formula.

    Attributes:
        key_HEC, query_HEC: H x E x Dh; vectors K and Q. bias_HE: H x E; bias b. None: not there.
    """

    key_HEC: Tensor | None = None
    query_HEC: Tensor | None = None
    bias_HE: Tensor | None = None


class Operations(Protocol):
    """Operations on one stream of packed sequences, under autograd.

    Attributes:
        longest: length that no sequence exceeds.
    """

    longest: int

    def attend(
        self,
        q_THC: Tensor,
        k_THC: Tensor,
        v_THC: Tensor,
        *,
        scale: float,
        dropout: float,
        window: int | None = None,
        distances: Distances | None = None,
    ) -> Tensor:
        """Return attention among the tokens of each sequence, T x H x Dh.

        Args:
            q_THC, k_THC, v_THC: of one type, with contiguous channels and any other strides. dropout: probability.
            window: distance up to which tokens see each other; None for all of a sequence.
        """

    def attend_rotated(
        self,
        qkv_T3HC: Tensor,
        cos_TC: Tensor,
        sin_TC: Tensor,
        *,
        scale: float,
        dropout: float,
        window: int | None = None,
    ) -> Tensor:
        """Return `attend` of queries and keys that are rotated by angles, in fp32, whose halves are equal."""

    def gate(self, x_TG: Tensor) -> Tensor:
        """Return GELU(a) b, where a and b are the halves of the last dimension."""

    def sum_norm(self, x_1TD: Tensor, added_1TD: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """Return the sum of both, and its norm."""


class PlainOperations:
    """Rotation, gate and sum in torch, for `Operations` that have `attend`."""

    attend: Any

    def attend_rotated(self, qkv_T3HC: Tensor, cos_TC: Tensor, sin_TC: Tensor, **options: Any) -> Tensor:
        """See `Operations`."""
        qk = qkv_T3HC[:, :2].float()
        first, second = qk.chunk(2, dim=-1)
        rotated = qk * cos_TC[:, None, None] + torch.cat((-second, first), dim=-1) * sin_TC[:, None, None]
        q_THC, k_THC = rotated.to(qkv_T3HC.dtype).unbind(1)
        attended: Tensor = self.attend(q_THC, k_THC, qkv_T3HC[:, 2], **options)
        return attended

    def gate(self, x_TG: Tensor) -> Tensor:
        """See `Operations`."""
        gelu, gate = x_TG.chunk(2, dim=-1)
        return F.gelu(gelu) * gate

    def sum_norm(self, x_1TD: Tensor, added_1TD: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        sum_1TD = x_1TD + added_1TD
        return sum_1TD, norm(sum_1TD)


class EachSequence(PlainOperations):
    """`Operations` in torch alone, one sequence after the other, without dropout or terms of distances."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths, self.longest = lengths, max(lengths)

    def attend(
        self,
        q_THC: Tensor,
        k_THC: Tensor,
        v_THC: Tensor,
        *,
        scale: float,
        dropout: float,
        window: int | None = None,
        distances: Distances | None = None,
    ) -> Tensor:
        """See `Operations`."""
        assert dropout == 0
        assert distances is None
        sequences = []
        for parts in zip(*(x.split(self._lengths) for x in (q_THC, k_THC, v_THC)), strict=True):
            position = torch.arange(len(parts[0]), device=q_THC.device)
            visible = (position[:, None] - position).abs() <= (len(position) if window is None else window)
            q, k, v = (part.transpose(0, 1) for part in parts)
            sequences.append(F.scaled_dot_product_attention(q, k, v, visible, scale=scale).transpose(0, 1))
        return torch.cat(sequences)
