"""Transformers' own layers on packed sequences on the GPU: autograd, with attention and dropout in Triton.

Weights are read in the type of the computation from their flat copy, so that no layer casts them, and gradients are
copied into the flat ones. Dropout masks follow from the seed of the step alone: no generator of torch is drawn from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from accl.kernels.layers import encoders
from accl.kernels.layers.encoders import packed_forward
from accl.kernels.layers.operations import Distances
from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.dropout import dropout_offset
from accl.kernels.triton.embedding import WordEmbedding
from accl.kernels.triton.flat import FlatParameters
from accl.kernels.triton.pointwise import apply_dropout
from accl.kernels.triton.prenorm import SumNorm
from accl.kernels.triton.rotary import Gate, rotate
from accl.kernels.triton.varlen import HEAD_SIZES, Attended, attend, attend_backward

# Encoders whose scores have terms that these operations lack.
OTHERS = ("deberta-v2", "mpnet")


def unsupported(encoder: Any) -> str | None:
    """Return why an encoder cannot be computed here; None if it can."""
    config = encoder.config
    if config.model_type in OTHERS:
        return f"no packed layers are like those of this {config.model_type}"
    channels = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if channels not in HEAD_SIZES:
        return "the packed layers need heads of 16, 32, 64 or 128 channels"
    if (reason := encoders.unsupported(encoder)) is not None:
        return reason
    return "some of its weights get no gradient" if encoders.idle_weights(encoder) else None


class VarlenOperations(TorchFunctionMode):
    """`accl.kernels.layers.operations.Operations` of one pass; as a context, takes the place of torch's dropout.

    Args:
        training: whether anything is dropped.

    Attributes:
        start_T: first token of the sequence that each token belongs to.
    """

    def __init__(self, sequences: PackedSequences, longest: int, training: bool) -> None:
        super().__init__()
        self._sequences, self.longest, self._training, self._dropouts = sequences, longest, training, 0
        self.start_T = sequences.start_T

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
        """See `Operations`; there are no terms of distances."""
        assert distances is None
        options = self._options(scale, dropout, window)
        attended: Tensor = _Attend.apply(q_THC, k_THC, v_THC, self._sequences, options)  # type: ignore[no-untyped-call]
        return attended

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
        """See `Operations`."""
        options = self._options(scale, dropout, window)
        inputs = (qkv_T3HC, cos_TC.contiguous(), sin_TC.contiguous(), self._sequences, options)
        attended: Tensor = _AttendRotated.apply(*inputs)  # type: ignore[no-untyped-call]
        return attended

    def gate(self, x_TG: Tensor) -> Tensor:
        """See `Operations`."""
        gated: Tensor = Gate.apply(x_TG)  # type: ignore[no-untyped-call]
        return gated

    def sum_norm(self, x_1TD: Tensor, added_1TD: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        summed: tuple[Tensor, Tensor] = SumNorm.apply(x_1TD, added_1TD, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
        return summed

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        if function is F.dropout:
            function = self._dropout
        return function(*arguments, **(keywords or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if p == 0 or not training or not self._training:
            return input
        dropped: Tensor = _Dropout.apply(input, self._sequences.seed, self._next_offset(), p)  # type: ignore[no-untyped-call]
        return dropped

    def _options(self, scale: float, dropout: float, window: int | None) -> dict[str, Any]:
        offset, dropout = self._next_offset(), dropout if self._training else 0.0
        return {"scale": scale, "dropout_offset": offset, "dropout": dropout, "window": window}

    def _next_offset(self) -> int:
        self._dropouts += 1
        return dropout_offset(self._dropouts)


class _Attend(torch.autograd.Function):
    """`VarlenOperations.attend`."""

    @staticmethod
    def forward(
        ctx: Any, q_THC: Tensor, k_THC: Tensor, v_THC: Tensor, sequences: PackedSequences, options: dict[str, Any]
    ) -> Tensor:
        attended = attend(q_THC, k_THC, v_THC, sequences, **options)
        ctx.save_for_backward(q_THC, k_THC, v_THC, attended.out, attended.lse)
        ctx.sequences, ctx.options = sequences, options
        return attended.out

    @staticmethod
    def backward(ctx: Any, dout_THC: Tensor) -> tuple[Tensor | None, ...]:
        q_THC, k_THC, v_THC, out, lse = ctx.saved_tensors
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THC, k_THC, v_THC))
        dout = dout_THC.contiguous()
        attend_backward(dout, q_THC, k_THC, v_THC, Attended(out, lse), dq, dk, dv, ctx.sequences, **ctx.options)
        return dq, dk, dv, None, None


class _AttendRotated(torch.autograd.Function):
    """`VarlenOperations.attend_rotated`: neither pass copies the joined projection."""

    @staticmethod
    def forward(
        ctx: Any, qkv_T3HC: Tensor, cos_TC: Tensor, sin_TC: Tensor, sequences: PackedSequences, options: dict[str, Any]
    ) -> Tensor:
        qk_T2HC = torch.empty_like(qkv_T3HC[:, :2], memory_format=torch.contiguous_format)
        rotate(qkv_T3HC[:, :2], qk_T2HC, cos_TC, sin_TC)
        attended = attend(qk_T2HC[:, 0], qk_T2HC[:, 1], qkv_T3HC[:, 2], sequences, **options)
        ctx.save_for_backward(qkv_T3HC, qk_T2HC, cos_TC, sin_TC, attended.out, attended.lse)
        ctx.sequences, ctx.options = sequences, options
        return attended.out

    @staticmethod
    def backward(ctx: Any, dout_THC: Tensor) -> tuple[Tensor | None, ...]:
        qkv_T3HC, qk_T2HC, cos_TC, sin_TC, out, lse = ctx.saved_tensors
        attended = Attended(out, lse)
        dqkv_T3HC = torch.empty_like(qkv_T3HC)
        dq, dk, dv = dqkv_T3HC.unbind(1)
        q, k, v = qk_T2HC[:, 0], qk_T2HC[:, 1], qkv_T3HC[:, 2]
        attend_backward(dout_THC.contiguous(), q, k, v, attended, dq, dk, dv, ctx.sequences, **ctx.options)
        rotate(dqkv_T3HC[:, :2], dqkv_T3HC[:, :2], cos_TC, sin_TC, backward=True)
        return dqkv_T3HC, None, None, None, None


class _Dropout(torch.autograd.Function):
    """Dropout whose mask is a hash, computed anew in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, offset: int, probability: float) -> Tensor:
        ctx.seed, ctx.offset, ctx.probability = seed, offset, probability
        return _dropped(x, seed, offset, probability)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        return _dropped(dout, ctx.seed, ctx.offset, ctx.probability), None, None, None


def _dropped(x: Tensor, seed: Tensor, offset: int, probability: float) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    apply_dropout(x, out, seed, offset, probability)
    return out


class _Runner(nn.Module):
    """An encoder on packed sequences as a module, for `torch.func.functional_call`."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self._forward = encoder, packed_forward(encoder)

    def forward(self, embeddings_TD: Tensor, position_T: Tensor, operations: VarlenOperations) -> Tensor:
        return self._forward(embeddings_TD, position_T, operations)


@dataclass(frozen=True)
class LayersCache:
    """Autograd's graph of a forward pass.

    Attributes:
        row_T: row of each token among the words. embeddings_TD: these rows, in the type of the computation.
        weights: leaves of the graph. hidden_TD: its result.
    """

    row_T: Tensor
    embeddings_TD: Tensor
    weights: list[Tensor]
    hidden_TD: Tensor


class PackedLayers:
    """Last hidden states of packed sequences by an encoder's own modules, and the gradients of its parameters.

    Args:
        encoder: one that is not `unsupported`, its parameters but the word embedding in ``flat``. words: the rows of
            that embedding that may be asked for.
        weights, skipped: copy of ``flat.values`` from element ``skipped`` on, in the type of the computation.
    """

    def __init__(self, encoder: Any, words: WordEmbedding, flat: FlatParameters, weights: Tensor, skipped: int) -> None:
        self._runner, self._words, self._dtype = _Runner(encoder), words, weights.dtype
        learnt = {
            name: parameter
            for name, parameter in self._runner.named_parameters()
            if parameter is not encoder.get_input_embeddings().weight
        }
        self._names = list(learnt)
        self._weights = [flat.span(weights, [p], skipped).view(p.shape) for p in learnt.values()]
        self._gradients = [flat.view(flat.gradients, parameter) for parameter in learnt.values()]

    def prepare(self, longest: int) -> None:
        """Do nothing: passes need no tables."""

    @torch.no_grad()
    def infer(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> Tensor:
        """Return the hidden states, T x D, without dropout and without gradient."""
        _, embeddings_TD = self._embed(ids_T)
        return self._run(embeddings_TD, self._weights, VarlenOperations(sequences, longest, training=False))

    def forward(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> tuple[Tensor, LayersCache]:
        """Return the hidden states, T x D, and what `backward` needs."""
        row_T, embeddings_TD = self._embed(ids_T)
        embeddings_TD.requires_grad_()
        weights = [weight.detach().requires_grad_() for weight in self._weights]
        with torch.enable_grad():
            hidden_TD = self._run(embeddings_TD, weights, VarlenOperations(sequences, longest, training=True))
        return hidden_TD.detach(), LayersCache(row_T, embeddings_TD, weights, hidden_TD)

    def backward(self, dhidden_TD: Tensor, cache: LayersCache) -> None:
        """Compute the gradients of all parameters in place: those of words are added, the others written."""
        leaves = [cache.embeddings_TD, *cache.weights]
        dembeddings_TD, *gradients = torch.autograd.grad(cache.hidden_TD, leaves, dhidden_TD)
        self._words.gradients.index_add_(0, cache.row_T, dembeddings_TD.float())
        torch._foreach_copy_(self._gradients, gradients)

    def _embed(self, ids_T: Tensor) -> tuple[Tensor, Tensor]:
        row_T = self._words.row_V.index_select(0, ids_T)
        return row_T, self._words.values.detach().index_select(0, row_T).to(self._dtype)

    def _run(self, embeddings_TD: Tensor, weights: list[Tensor], operations: VarlenOperations) -> Tensor:
        position_T = torch.arange(len(embeddings_TD), device=embeddings_TD.device) - operations.start_T
        named = dict(zip(self._names, weights, strict=True))
        with operations:
            hidden_TD: Tensor = torch.func.functional_call(self._runner, named, (embeddings_TD, position_T, operations))
        return hidden_TD
