"""DeBERTa-v2 and -v3 over packed sequences: forward and backward pass by hand, on the GPU.

Reads and trains the parameters of transformers' `DebertaV2Model` in place. A stream of T tokens holds sequences end to
end; the W rows of the position table ride behind it through the projections of queries and keys, which DeBERTa-v3
shares with the content. Matrix products are cuBLAS's, everything between them is in `accl.fast.kernels` and
`accl.fast.attention`. Parameter gradients are written where `accl.fast.flat` keeps them, not accumulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accl.fast.aside import Aside
from accl.fast.attention import Stream, attend, attend_backward
from accl.fast.dropout import site
from accl.fast.flat import FlatParameters
from accl.fast.kernels import add_dropped, add_norm, add_norm_backward, collect, drop, expand, gelu_backward
from accl.fast.positions import Reach, by_distance

# Places of dropout in a layer: position table, attention weights, after attention, after the feed-forward part.
SITES = 4


def unsupported(config: Any) -> str | None:
    """Why a `DebertaV2Config` cannot be taken; None when it can."""
    width, heads = config.hidden_size, config.num_attention_heads
    wanted: dict[str, bool] = {
        "relative attention of content to position and position to content": bool(config.relative_attention)
        and set(config.pos_att_type or ()) == {"c2p", "p2c"},
        "share_att_key": bool(getattr(config, "share_att_key", False)),
        "norm_rel_ebd=layer_norm": getattr(config, "norm_rel_ebd", "none") == "layer_norm",
        "no absolute positions, token types or convolution": not config.position_biased_input
        and config.type_vocab_size == 0
        and getattr(config, "conv_kernel_size", 0) == 0,
        "an embedding as wide as the layers": getattr(config, "embedding_size", width) == width,
        "hidden_act=gelu": config.hidden_act == "gelu",
        "heads of 16, 32, 64 or 128 channels": width % heads == 0 and width // heads in (16, 32, 64, 128),
        "widths that are multiples of 64": width % 64 == 0 and config.intermediate_size % 64 == 0,
    }
    missing = [name for name, there in wanted.items() if not there]
    return f"the fast layers need {missing[0]}" if missing else None


@dataclass(frozen=True)
class Layer:
    """Weights of one layer in the type that is computed in, norms in fp32, and where the gradients go, in fp32.

    ``sums``: 3 x D; gradients of a norm's gain and bias, and of the bias of the linear layer before it. ``matrices``:
    the gradients of all matrices, end to end, and ``norm``: where the norm of them goes.
    """

    qkv: Tensor
    qkv_bias: Tensor
    mix: Tensor
    mix_bias: Tensor
    gain1: Tensor
    bias1: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    gain2: Tensor
    bias2: Tensor
    dqkv: Tensor
    dqkv_bias: Tensor
    dmix: Tensor
    sums1: Tensor
    dup: Tensor
    dup_bias: Tensor
    ddown: Tensor
    sums2: Tensor
    matrices: Tensor
    norm: Tensor


def matrices(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """Weights of all layers in the order that `layers` expects: those that decay."""
    for layer in encoder.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention
        for linear in (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj):
            yield linear.weight
        yield attention.output.dense.weight
        yield layer.intermediate.dense.weight
        yield layer.output.dense.weight


def vectors(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """Biases and norms of all layers in the order that `layers` expects."""
    for layer in encoder.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention
        for linear in (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj):
            yield linear.bias
        yield layer.intermediate.dense.bias
        for output in (attention.output, layer.output):
            yield from (output.LayerNorm.weight, output.LayerNorm.bias, output.dense.bias)


def layers(encoder: nn.Module, flat: FlatParameters, narrow: Tensor, before: int, norms: Tensor) -> list[Layer]:
    """The layers of an encoder whose `matrices` and `vectors` lie in ``flat``, end to end.

    Args:
        narrow: the copy that is computed with, of what lies ``before`` elements into ``flat``.
        norms: one for each layer, see `Layer`.
    """
    found = []
    stack: Any = encoder.encoder
    for number, layer in enumerate(stack.layer):
        attention, inner = layer.attention, layer.intermediate.dense
        three = (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj)
        parts = {
            "qkv": [linear.weight for linear in three],
            "qkv_bias": [linear.bias for linear in three],
            "mix": [attention.output.dense.weight],
            "up": [inner.weight],
            "up_bias": [inner.bias],
            "down": [layer.output.dense.weight],
        }
        weights = {name: flat.span(narrow, part, before) for name, part in parts.items()}
        gradients = {f"d{name}": flat.span(flat.gradients, part) for name, part in parts.items()}
        for half, output in ((1, attention.output), (2, layer.output)):
            bias = "mix_bias" if half == 1 else "down_bias"
            weights[bias] = flat.span(narrow, [output.dense.bias], before)
            norm = output.LayerNorm
            weights[f"gain{half}"], weights[f"bias{half}"] = norm.weight.data, norm.bias.data
            sums = flat.span(flat.gradients, [norm.weight, norm.bias, output.dense.bias])
            gradients[f"sums{half}"] = sums.view(3, -1)
        whole = [weight for name in ("qkv", "mix", "up", "down") for weight in parts[name]]
        gradients["matrices"] = flat.span(flat.gradients, whole)
        found.append(Layer(**weights, **gradients, norm=norms[number]))
    return found


@dataclass(frozen=True)
class Shape:
    """Numbers of an encoder: heads H, eps of its norms, and its dropout."""

    heads: int
    eps: float
    hidden_dropout: float
    attention_dropout: float


class _Layers(torch.autograd.Function):
    """All layers: T x D and the position table, W x D, to T x D."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens_TD: Tensor,
        table_WD: Tensor,
        stream: Stream,
        reach: Reach,
        parts: list[Layer],
        shape: Shape,
        learning: bool,
    ) -> Tensor:
        tokens = len(tokens_TD)
        # The table rides behind the tokens of every layer.
        joined = tokens_TD.new_empty(tokens + len(table_WD), tokens_TD.shape[1])
        joined[:tokens] = tokens_TD
        kept = []
        for number, layer in enumerate(parts):
            drop(table_WD, joined[tokens:], stream.seed, site(number * SITES), shape.hidden_dropout)
            out = torch.empty_like(joined)
            saved = _layer(joined, out, stream, reach, layer, shape, number * SITES)
            if learning:
                kept.append(saved)
            joined = out
        ctx.kept, ctx.stream, ctx.reach, ctx.parts, ctx.shape, ctx.table = kept, stream, reach, parts, shape, table_WD
        return joined[:tokens]

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        dtable = torch.zeros_like(ctx.table, dtype=torch.float32)
        dx = dout.contiguous()
        aside = Aside(dout.device)
        c2p = ctx.kept[0].c2p
        # Every layer writes the same places of them.
        tables = torch.zeros_like(c2p), torch.zeros_like(c2p)
        for number in reversed(range(len(ctx.parts))):
            saved, layer = ctx.kept.pop(), ctx.parts[number]
            dx = _layer_backward(
                dx, dtable, tables, saved, ctx.stream, ctx.reach, layer, ctx.shape, number * SITES, aside
            )
        aside.join()
        return dx, dtable.to(ctx.table.dtype), None, None, None, None, None


def _by_head(rows: Tensor, part: int, parts: int, heads: int) -> Tensor:
    """One of several parts that stand side by side in every row, H x rows x Dh, as a view."""
    return rows.view(len(rows), parts, heads, -1)[:, part].transpose(0, 1)


@dataclass(frozen=True)
class _Saved:
    """What the backward pass of a layer needs of the forward one."""

    joined: Tensor
    qkv: Tensor
    distances: Tensor
    c2p: Tensor
    p2c: Tensor
    seen: Tensor
    lse: Tensor
    mixed: Tensor
    norm1: tuple[Tensor, Tensor]
    h: Tensor
    inner: Tensor
    active: Tensor
    dense: Tensor
    norm2: tuple[Tensor, Tensor]


def _layer(
    joined: Tensor, out: Tensor, stream: Stream, reach: Reach, layer: Layer, shape: Shape, first_site: int
) -> _Saved:
    tokens, heads, seed, dropout = len(stream.start_T), shape.heads, stream.seed, shape.hidden_dropout
    x = joined[:tokens]
    qkv = torch.addmm(layer.qkv_bias, joined, layer.qkv.t())
    distances = expand(qkv, tokens, reach.row)
    c2p = torch.bmm(_by_head(qkv[:tokens], 0, 3, heads), _by_head(distances[1], 0, 1, heads).transpose(1, 2))
    p2c = torch.bmm(_by_head(qkv[:tokens], 1, 3, heads), _by_head(distances[0], 0, 1, heads).transpose(1, 2))
    seen, lse = attend(qkv, c2p, p2c, stream, heads, site(first_site + 1), shape.attention_dropout)
    mixed = torch.addmm(layer.mix_bias, seen, layer.mix.t())
    h = torch.empty_like(x)
    norm1 = add_norm(mixed, x, layer.gain1, layer.bias1, shape.eps, seed, site(first_site + 2), dropout, h)
    inner = torch.addmm(layer.up_bias, h, layer.up.t())
    active = F.gelu(inner)
    dense = torch.addmm(layer.down_bias, active, layer.down.t())
    norm2 = add_norm(dense, h, layer.gain2, layer.bias2, shape.eps, seed, site(first_site + 3), dropout, out)
    return _Saved(joined, qkv, distances, c2p, p2c, seen, lse, mixed, norm1, h, inner, active, dense, norm2)


def _layer_backward(
    dout: Tensor,
    dtable: Tensor,
    tables: tuple[Tensor, Tensor],
    saved: _Saved,
    stream: Stream,
    reach: Reach,
    layer: Layer,
    shape: Shape,
    first_site: int,
    aside: Aside,
) -> Tensor:
    tokens, heads, seed, dropout = len(dout), shape.heads, stream.seed, shape.hidden_dropout
    x, qkv = saved.joined[:tokens], saved.qkv
    ddense, dh, partial = add_norm_backward(
        dout, saved.dense, saved.h, layer.gain2, *saved.norm2, seed, site(first_site + 3), dropout
    )
    with aside(ddense, partial, saved.active):
        _weight_gradient(ddense, saved.active, layer.ddown)
        torch.sum(partial, 0, out=layer.sums2)
    dinner, partial = gelu_backward(torch.mm(ddense, layer.down), saved.inner)
    with aside(dinner, partial, saved.h):
        _weight_gradient(dinner, saved.h, layer.dup)
        torch.sum(partial, 0, out=layer.dup_bias)
    dh = torch.addmm(dh, dinner, layer.up)
    dmixed, dx, partial = add_norm_backward(
        dh, saved.mixed, x, layer.gain1, *saved.norm1, seed, site(first_site + 2), dropout
    )
    with aside(dmixed, partial, saved.seen):
        _weight_gradient(dmixed, saved.seen, layer.dmix)
        torch.sum(partial, 0, out=layer.sums1)
    dqkv = torch.empty_like(qkv)
    attend_backward(
        torch.mm(dmixed, layer.mix),
        qkv,
        saved.c2p,
        saved.p2c,
        saved.seen,
        saved.lse,
        dqkv,
        *tables,
        stream,
        heads,
        site(first_site + 1),
        shape.attention_dropout,
    )
    # c2p = queries x the table's keys, p2c = keys x the table's queries: the gradients of both sides.
    ddistances = torch.empty_like(saved.distances)
    for table, own, back in ((tables[0], 0, 1), (tables[1], 1, 0)):
        direct = _by_head(dqkv[:tokens], own, 3, heads)
        torch.baddbmm(direct, table, _by_head(saved.distances[back], 0, 1, heads), out=direct)
        far = _by_head(ddistances[back], 0, 1, heads)
        torch.bmm(table.transpose(1, 2), _by_head(qkv[:tokens], own, 3, heads), out=far)
    collect(ddistances, reach.first, reach.end, dqkv)
    with aside(dqkv, saved.joined):
        _weight_gradient(dqkv, saved.joined, layer.dqkv)
        torch.sum(dqkv, 0, dtype=torch.float32, out=layer.dqkv_bias)
        add_dropped(torch.mm(dqkv[tokens:], layer.qkv), dtable, seed, site(first_site), dropout)
        torch.linalg.vector_norm(layer.matrices, out=layer.norm)
    return torch.addmm(dx, dqkv[:tokens], layer.qkv)


def _weight_gradient(dout: Tensor, inputs: Tensor, out: Tensor) -> None:
    """dout^T inputs in fp32, whatever the type of both."""
    if dout.dtype == out.dtype:
        torch.mm(dout.t(), inputs, out=out)
    else:
        torch.mm(dout.t(), inputs, out_dtype=out.dtype, out=out)


class _Lookup(torch.autograd.Function):
    """Rows of an embedding; its gradient is written to ``weight.grad``, not accumulated."""

    @staticmethod
    def forward(ctx: Any, row_T: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(row_T)
        ctx.weight = weight
        return weight[row_T]

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[None, None]:
        (row_T,) = ctx.saved_tensors
        ctx.weight.grad.zero_().index_add_(0, row_T, dout)
        return None, None


# torch does not type them.
_layers: Any = _Layers.apply
_lookup: Any = _Lookup.apply


class FastDeberta:
    """The last hidden states of packed sequences, by an encoder's own parameters.

    Args:
        encoder: a `DebertaV2Model` that is not `unsupported`, its word embedding a
            `accl.fast.vocabulary.CompactEmbedding`, its parameters in ``flat``.
        narrow, before: see `layers`; their type is that of the computation.
    """

    def __init__(self, encoder: nn.Module, flat: FlatParameters, narrow: Tensor, before: int) -> None:
        config: Any = encoder.config
        self._encoder: Any = encoder
        self._dtype, self._device = narrow.dtype, narrow.device
        self.norms = torch.zeros(config.num_hidden_layers, device=narrow.device)
        """Of the gradients of each layer's `matrices`, after a backward pass."""
        self._parts = layers(encoder, flat, narrow, before, self.norms)
        self._shape = Shape(
            config.num_attention_heads,
            config.layer_norm_eps,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )
        self._still = replace(self._shape, hidden_dropout=0.0, attention_dropout=0.0)
        self._reaches: dict[int, Reach] = {}

    def prepare(self, reach: int) -> None:
        """Lay the position table out for a reach; before a step with it is captured."""
        if reach not in self._reaches:
            self._reaches[reach] = by_distance(self._encoder.config, reach, self._device)

    def __call__(self, ids_T: Tensor, stream: Stream, reach: int, dropout: bool) -> Tensor:
        """Hidden states, T x D, of token ids in sequences no longer than ``reach``."""
        self.prepare(reach)
        words, positions = self._encoder.embeddings, self._encoder.encoder
        x = words.LayerNorm(_lookup(words.word_embeddings.place_V[ids_T], words.word_embeddings.weight))
        if dropout:
            x = F.dropout(x, self._shape.hidden_dropout)
        table = positions.LayerNorm(positions.rel_embeddings.weight)
        shape = self._shape if dropout else self._still
        learning = torch.is_grad_enabled()  # which is off inside
        out: Tensor = _layers(x.to(self._dtype), table, stream, self._reaches[reach], self._parts, shape, learning)
        return out


def means(hidden_TD: Tensor, begin_N: Tensor, end_N: Tensor) -> Tensor:
    """Mean hidden state of each sequence, N x D in fp32; one holds the tokens from its begin to before its end."""
    token_T = torch.arange(len(hidden_TD), device=hidden_TD.device)
    member_NT = ((token_T >= begin_N[:, None]) & (token_T < end_N[:, None])).float()
    with torch.autocast(hidden_TD.device.type, enabled=False):
        return (member_NT @ hidden_TD.float()) / (end_N - begin_N).clamp(min=1)[:, None]
