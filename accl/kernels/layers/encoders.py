"""Last hidden states of packed sequences by an encoder's own layers: transformers' modules, called on a stream.

Attention is given by the caller, so that these functions hold on any device. An encoder whose attention goes through
transformers' AttentionInterface runs as a whole; MPNet and DeBERTa, which add terms of distances to their scores, have
functions here. Whether an encoder can be run so is tried on a few sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.kernels.layers.attention import Distances

# The name under which transformers' AttentionInterface knows `_attend`.
INTERFACE = "accl_packed"
# Lengths of the sequences that an encoder is tried on: the first one longer than usual windows of attention.
SAMPLE = (160, 70, 3)


class Attention(Protocol):
    """Attention among the tokens of each sequence of a stream; see `accl.kernels.layers.attention`."""

    longest: int

    def __call__(
        self,
        q_THC: Tensor,
        k_THC: Tensor,
        v_THC: Tensor,
        *,
        scale: float,
        dropout: float,
        window: int | None = None,
        distances: Distances | None = None,
    ) -> Tensor: ...


# From token ids, T, positions of tokens in their sequences, T, and attention to last hidden states, T x D.
PackedForward = Callable[[Tensor, Tensor, Attention], Tensor]


def packed_forward(encoder: Any) -> PackedForward:
    """Return the function that runs an encoder, which is not `unsupported`, on packed sequences."""
    own = {"deberta-v2": _deberta, "mpnet": _mpnet}.get(encoder.config.model_type)
    if own is None:
        _register()
    return partial(own or _any, encoder)


def unsupported(encoder: Any) -> str | None:
    """Return why an encoder cannot be run on packed sequences; None if it can."""
    config = encoder.config
    if config.model_type == "deberta-v2":
        return "a convolution beside the first layer" if getattr(config, "conv_kernel_size", 0) > 0 else None
    if config.model_type == "mpnet":
        return None
    if not getattr(encoder, "_supports_attention_backend", False):
        return f"the attention of {config.model_type} does not go through transformers' AttentionInterface"
    if "position_ids" not in inspect.signature(encoder.forward).parameters:
        return f"{config.model_type} takes no positions of tokens"
    return (
        None
        if _is_equal(encoder)
        else f"{config.model_type} makes something else of packed sequences than of each alone"
    )


@torch.no_grad()
def _is_equal(encoder: Any) -> bool:
    """Return whether an encoder makes the same of a few packed sequences as of each alone."""
    config, device = encoder.config, next(encoder.parameters()).device
    longest = min(SAMPLE[0], getattr(config, "max_position_embeddings", None) or SAMPLE[0]) - 4
    lengths = [longest, *SAMPLE[1:]]
    ids_T = torch.arange(sum(lengths), device=device) * 7 % config.vocab_size
    padding = encoder.get_input_embeddings().padding_idx
    if padding is not None:
        ids_T[ids_T == padding] = (padding + 1) % config.vocab_size
    position_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    training = encoder.training
    encoder.eval()
    try:
        packed_TD = packed_forward(encoder)(ids_T, position_T, _EachSequence(lengths))
        alone = [encoder(input_ids=ids[None]).last_hidden_state[0] for ids in ids_T.split(lengths)]
    finally:
        encoder.train(training)
    expected_TD = torch.cat(alone)
    return bool((packed_TD - expected_TD).norm() < 1e-4 * expected_TD.norm())


class _EachSequence:
    """Attention of one sequence after the other."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths, self.longest = lengths, max(lengths)

    def __call__(
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
        assert dropout == 0
        assert distances is None
        sequences = []
        for parts in zip(*(x.split(self._lengths) for x in (q_THC, k_THC, v_THC)), strict=True):
            position = torch.arange(len(parts[0]), device=q_THC.device)
            visible = (position[:, None] - position).abs() <= (len(position) if window is None else window)
            q, k, v = (part.transpose(0, 1) for part in parts)
            sequences.append(F.scaled_dot_product_attention(q, k, v, visible, scale=scale).transpose(0, 1))
        return torch.cat(sequences)


def _any(encoder: Any, ids_T: Tensor, position_T: Tensor, attention: Attention) -> Tensor:
    """Run an encoder whose attention goes through the AttentionInterface."""
    keywords: dict[str, Tensor] = {"position_ids": _table_rows(encoder, position_T)[None]}
    if "token_type_ids" in inspect.signature(encoder.forward).parameters:
        keywords["token_type_ids"] = torch.zeros_like(ids_T)[None]
    with _interface(encoder.config):
        output = encoder(input_ids=ids_T[None], packed_attention=attention, **keywords)
    hidden_TD: Tensor = output.last_hidden_state[0]
    return hidden_TD


def _table_rows(encoder: Any, position_T: Tensor) -> Tensor:
    """Return the rows of the table of positions: those of RoBERTa's family begin behind that of padding."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return position_T if padding is None else position_T + padding + 1


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, _attend)


@contextmanager
def _interface(config: Any) -> Iterator[None]:
    """Let an encoder's layers call `_attend`; transformers makes no mask for attention that it does not know."""
    own = config._attn_implementation_internal
    config._attn_implementation_internal = INTERFACE
    try:
        yield
    finally:
        config._attn_implementation_internal = own


def _attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_attention: Attention,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_ignored: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' interface asks: q, k, v are 1 x H x T x Dh, the result 1 x T x H x Dh.

    The packed attention comes as a keyword of the encoder's call, so nothing is shared between encoders.
    """
    assert attention_mask is None
    q_THC, k_THC, v_THC = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # As in flash attention, a window counts the token itself.
    window = None if sliding_window is None else sliding_window - 1
    out_THC = packed_attention(q_THC, k_THC, v_THC, scale=scale, dropout=dropout, window=window)
    return out_THC[None], None


def _mpnet(encoder: Any, ids_T: Tensor, position_T: Tensor, attention: Attention) -> Tensor:
    """Run an `MPNetModel`, whose scores have a bias for the bucket of each distance."""
    rows_T = _table_rows(encoder, position_T)
    hidden_1TD = encoder.embeddings(input_ids=ids_T[None], position_ids=rows_T[None])
    layers = encoder.encoder
    # transformers computes the bucket of j - i.
    distance_E = torch.arange(attention.longest - 1, -attention.longest, -1, device=ids_T.device)
    bucket_E = layers.relative_position_bucket(distance_E, num_buckets=encoder.config.relative_attention_num_buckets)
    distances = Distances(bias_HE=layers.relative_attention_bias(bucket_E).t())
    for layer in layers.layer:
        own = layer.attention.attn
        q_THC, k_THC, v_THC = (_heads(f(hidden_1TD), own.num_attention_heads) for f in (own.q, own.k, own.v))
        out_THC = attention(
            q_THC, k_THC, v_THC, scale=own.attention_head_size**-0.5, dropout=_rate(own.dropout), distances=distances
        )
        attended = layer.attention.dropout(own.o(out_THC.flatten(1)[None]))
        attended = layer.attention.LayerNorm(attended + hidden_1TD)
        hidden_1TD = layer.output(layer.intermediate(attended), attended)
    hidden_TD: Tensor = hidden_1TD[0]
    return hidden_TD


def _deberta(encoder: Any, ids_T: Tensor, position_T: Tensor, attention: Attention) -> Tensor:
    """Run a `DebertaV2Model`, whose scores have terms of content and relative position."""
    hidden_1TD = encoder.embeddings(input_ids=ids_T[None], position_ids=position_T[None])
    layers = encoder.encoder
    table_WD = layers.get_rel_embedding()
    row_E = None if table_WD is None else _deberta_rows(layers, attention.longest, ids_T.device)
    for layer in layers.layer:
        own = layer.attention.self
        projections = own.query_proj, own.key_proj, own.value_proj
        q_THC, k_THC, v_THC = (_heads(f(hidden_1TD), own.num_attention_heads) for f in projections)
        terms = 1 + len({"c2p", "p2c"} & set(own.pos_att_type))
        distances = None if row_E is None else _deberta_distances(own, table_WD, row_E)
        out_THC = attention(
            q_THC, k_THC, v_THC,
            scale=(own.attention_head_size * terms) ** -0.5, dropout=_rate(own.dropout), distances=distances,
        )  # fmt: skip
        attended = layer.attention.output(out_THC.flatten(1)[None], hidden_1TD)
        hidden_1TD = layer.output(layer.intermediate(attended), attended)
    hidden_TD: Tensor = hidden_1TD[0]
    return hidden_TD


def _deberta_rows(layers: Any, longest: int, device: torch.device) -> Tensor:
    """Return the row of the position table for each distance, E."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance_E = torch.arange(1 - longest, longest)
    half = layers.max_relative_positions
    if layers.position_buckets > 0:
        half = layers.position_buckets
        distance_E = make_log_bucket_position(distance_E, half, layers.max_relative_positions).long()
    row_E: Tensor = (distance_E + half).clamp(0, 2 * half - 1).to(device)
    return row_E


def _deberta_distances(own: Any, table_WD: Tensor, row_E: Tensor) -> Distances:
    """Project the rows of the position table that are asked for, as keys and as queries."""
    first, last = int(row_E[0]), int(row_E[-1])
    used_WD = own.pos_dropout(table_WD)[first : last + 1]

    def project(projection: Any) -> Tensor:
        x_ED: Tensor = projection(used_WD).index_select(0, row_E - first)
        return x_ED.view(len(row_E), own.num_attention_heads, -1).transpose(0, 1)

    key = query = None
    if "c2p" in own.pos_att_type:
        key = project(own.key_proj if own.share_att_key else own.pos_key_proj)
    if "p2c" in own.pos_att_type:
        query = project(own.query_proj if own.share_att_key else own.pos_query_proj)
    return Distances(key, query)


def _heads(x_1TD: Tensor, heads: int) -> Tensor:
    return x_1TD[0].view(x_1TD.shape[1], heads, -1)


def _rate(dropout: Any) -> float:
    """Return the probability with which a module drops now."""
    return float(dropout.p) if dropout.training else 0.0
