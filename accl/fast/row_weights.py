"""The weights of a layer that `accl.fast.row_layer` computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Parameters of a layer, or their gradients.

    ``inner`` are queries, keys and values, one below the other; ``position`` queries and keys of the position table,
    and None where they are the first two thirds of ``inner``. ``norm``: gain and bias.
    """

    inner_3ED: Tensor
    inner_3E: Tensor
    position_2ED: Tensor | None
    position_2E: Tensor | None
    mix_DE: Tensor
    mix_D: Tensor
    norm1: tuple[Tensor, Tensor]
    up_FD: Tensor
    up_F: Tensor
    down_DF: Tensor
    down_D: Tensor
    norm2: tuple[Tensor, Tensor]

    @classmethod
    def joined(cls, own: Sequence[Tensor]) -> Weights:
        """From the tensors of a layer in the order of `parameters`."""
        *first, mix_DE, mix_D, gain1_D, bias1_D, up_FD, up_F, down_DF, down_D, gain2_D, bias2_D = own
        apart = len(first) > 6
        return cls(
            torch.cat(first[0:3]),
            torch.cat(first[3:6]),
            torch.cat(first[6:8]) if apart else None,
            torch.cat(first[8:10]) if apart else None,
            mix_DE,
            mix_D,
            (gain1_D, bias1_D),
            up_FD,
            up_F,
            down_DF,
            down_D,
            (gain2_D, bias2_D),
        )

    def parted(self) -> list[Tensor]:
        """The tensors of a layer in the order of `parameters`."""
        positions: tuple[Tensor, ...] = ()
        if self.position_2ED is not None and self.position_2E is not None:
            positions = (*self.position_2ED.chunk(2), *self.position_2E.chunk(2))
        return [
            *self.inner_3ED.chunk(3),
            *self.inner_3E.chunk(3),
            *positions,
            self.mix_DE,
            self.mix_D,
            *self.norm1,
            self.up_FD,
            self.up_F,
            self.down_DF,
            self.down_D,
            *self.norm2,
        ]

    @property
    def of_positions(self) -> tuple[Tensor, Tensor]:
        """Weight and bias that the position table is projected with."""
        if self.position_2ED is not None and self.position_2E is not None:
            return self.position_2ED, self.position_2E
        size = len(self.inner_3E) // 3 * 2
        return self.inner_3ED[:size], self.inner_3E[:size]


def parameters(layer: Any) -> list[Tensor]:
    """Of a `DebertaV2Layer`."""
    attention, mix = layer.attention.self, layer.attention.output
    inner = [attention.query_proj, attention.key_proj, attention.value_proj]
    positions = [] if attention.share_att_key else [attention.pos_query_proj, attention.pos_key_proj]
    rest = [mix.dense, mix.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm]
    together = [getattr(m, name) for group in (inner, positions) for name in ("weight", "bias") for m in group]
    return [*together, *(getattr(m, name) for m in rest for name in ("weight", "bias"))]
