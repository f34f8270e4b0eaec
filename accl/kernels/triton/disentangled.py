"""Disentangled attention as `accl.kernels.triton.layer` calls it: relative scores, attention, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from accl.kernels.triton.attention import Attended, PackedSequences, attend, attend_backward
from accl.kernels.triton.layer import EncoderSettings, dropout_offsets
from accl.kernels.triton.parameters import LayerWeights
from accl.kernels.triton.pointwise import apply_dropout
from accl.kernels.triton.positions import RelativePositions
from accl.kernels.triton.rel_scores import grad_to_positions, grad_to_tokens, rel_scores
from accl.kernels.triton.streams import SideStream
from accl.kernels.triton.tables import table_columns


@dataclass
class GradBuffer:
    """Memory for the gradient to a layer's relative scores, 2 x H x T x Y.

    Attributes:
        last_read: fires when the side stream has read what a layer wrote; None before the first one.
    """

    drel_scores: Tensor
    last_read: torch.cuda.Event | None = None


@dataclass
class DisentangledAttention:
    """Attention of the layers of one pass, see `accl.kernels.triton.layer.LayerAttention`.

    The W rows of the position table stand behind the T tokens, also in qkv.

    Attributes:
        buffers: two, used in turn, so that a layer does not wait for the readers of the one above it.
        dtable: W x D, fp32; gradient of the position table, which the layers add to.
    """

    sequences: PackedSequences
    positions: RelativePositions
    settings: EncoderSettings
    stream: SideStream
    buffers: list[GradBuffer] = field(default_factory=list)
    dtable: Tensor | None = None

    def begin_backward(self, tokens: int, dtype: torch.dtype, dtable: Tensor) -> None:
        """Take the memory that the layers' backward passes share; ``dtable`` is added to."""
        size = (2, self.settings.heads, tokens, table_columns(len(self.positions.row) // 2))
        self.buffers = [GradBuffer(torch.empty(size, dtype=dtype, device=dtable.device)) for _ in range(2)]
        self.dtable = dtable

    def attend(self, qkv: Tensor, layer: int) -> Attended:
        sequences, settings = self.sequences, self.settings
        scores = rel_scores(qkv, sequences, self.positions, settings.heads)
        offset = dropout_offsets(layer)[1]
        return attend(qkv, scores, sequences, settings.heads, offset, settings.attention_dropout)

    def backward(self, dout: Tensor, qkv: Tensor, attended: Attended, dqkv: Tensor, layer: int) -> None:
        buffer, sequences, settings = self.buffers[layer % 2], self.sequences, self.settings
        if buffer.last_read is not None:
            torch.cuda.current_stream().wait_event(buffer.last_read)
        attend_backward(
            dout, qkv, attended, dqkv, buffer.drel_scores, sequences, settings.heads, settings.attention_dropout
        )
        grad_to_tokens(buffer.drel_scores, qkv, sequences, self.positions, dqkv)

    def backward_aside(self, qkv: Tensor, dqkv: Tensor, weights: LayerWeights, layer: int) -> None:
        assert self.dtable is not None
        buffer, sequences = self.buffers[layer % 2], self.sequences
        grad_to_positions(buffer.drel_scores, qkv, sequences, self.positions, dqkv)
        buffer.last_read = self.stream.record_event()
        dpositions = torch.mm(dqkv[len(sequences.start_T) :], weights.qkv)
        offset, dropout = dropout_offsets(layer)[0], self.settings.hidden_dropout
        apply_dropout(dpositions, self.dtable, sequences.seed, offset, dropout, add=True)
