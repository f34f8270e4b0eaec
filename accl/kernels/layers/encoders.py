"""Last hidden states of packed sequences by an encoder's own layers: transformers' modules, called on a stream.

Operations among tokens are given by the caller, so that these functions hold on any device. An encoder whose attention
goes through transformers' AttentionInterface runs as a whole. MPNet and DeBERTa, which add terms of distances to their
scores, have functions here, and so has ModernBERT, whose rotation and gate are operations. Whether an encoder can be
run so is tried on a few sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from accl.kernels.buckets import log_buckets
from accl.kernels.layers.operations import Distances, EachSequence, Operations

# The name under which transformers' AttentionInterface knows `_attend`.
INTERFACE = "accl_packed"
# Lengths of the sequences that an encoder is tried on: the first one longer than usual windows of attention.
SAMPLE = (160, 70, 3)
# Relative difference that rounding may make.
TOLERANCE = 1e-4


# From token ids, T, or their embeddings, T x D; positions of tokens in their sequences, T; and operations: to last
# hidden states, T x D.
PackedForward = Callable[[Tensor, Tensor, Operations], Tensor]


def packed_forward(encoder: Any) -> PackedForward:
    """Return the function that runs an encoder, which is not `unsupported`, on packed sequences."""
    own = {"deberta-v2": _deberta, "modernbert": _modernbert, "mpnet": _mpnet}.get(encoder.config.model_type)
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
    try:
        packed_TD, expected_TD = _sampled(encoder)
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # Encoders may come from anywhere.
        return f"{config.model_type} does not run on packed sequences ({str(error).partition(chr(10))[0]})"
    if (packed_TD - expected_TD).norm() > TOLERANCE * expected_TD.norm():
        return f"{config.model_type} makes something else of packed sequences than of each alone"
    return None


def idle_weights(encoder: Any) -> bool:
    """Return whether some weights of an encoder have no part in its hidden states, and so get no gradient."""
    others = [parameter for parameter in encoder.parameters() if parameter is not encoder.get_input_embeddings().weight]
    gradients = torch.autograd.grad(_sampled(encoder)[0].sum(), others, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def _sampled(encoder: Any) -> tuple[Tensor, Tensor]:
    """Return the hidden states, T x D, of a few packed sequences, and those of each alone."""
    config, device = encoder.config, next(encoder.parameters()).device
    longest = min(SAMPLE[0], getattr(config, "max_position_embeddings", None) or SAMPLE[0]) - 4
    lengths = [longest, *SAMPLE[1:]]
    words = encoder.get_input_embeddings()
    ids_T = torch.arange(sum(lengths), device=device) * 7 % config.vocab_size
    if words.padding_idx is not None:
        ids_T[ids_T == words.padding_idx] = (words.padding_idx + 1) % config.vocab_size
    position_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    training = encoder.training
    encoder.eval()
    try:
        packed_TD = packed_forward(encoder)(words(ids_T), position_T, EachSequence(lengths))
        with torch.no_grad():
            alone = [encoder(input_ids=ids[None]).last_hidden_state[0] for ids in ids_T.split(lengths)]
    finally:
        encoder.train(training)
    return packed_TD, torch.cat(alone)


def _any(encoder: Any, tokens: Tensor, position_T: Tensor, operations: Operations) -> Tensor:
    """Run an encoder whose attention goes through the AttentionInterface."""
    keywords = _inputs(tokens) | {"position_ids": _table_rows(encoder, position_T)[None]}
    if "token_type_ids" in inspect.signature(encoder.forward).parameters:
        keywords["token_type_ids"] = torch.zeros_like(position_T)[None]
    with _interface(encoder.config), _exact_angles(encoder):
        output = encoder(packed_operations=operations, **keywords)
    hidden_TD: Tensor = output.last_hidden_state[0]
    return hidden_TD


def _inputs(tokens: Tensor) -> dict[str, Tensor]:
    """Return token ids or embeddings as an encoder's argument."""
    return {"inputs_embeds" if tokens.is_floating_point() else "input_ids": tokens[None]}


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


@contextmanager
def _exact_angles(encoder: Any) -> Iterator[None]:
    """Let rotary positions be computed in fp32 whatever the type of the hidden states: far ones need it."""

    def give_fp32(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (arguments[0].new_empty(0, dtype=torch.float32), *arguments[1:]) if arguments else None

    modules = [module for name, module in encoder.named_modules() if name.endswith("rotary_emb")]
    hooks = [module.register_forward_pre_hook(give_fp32) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_operations: Operations,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_ignored: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' interface asks: q, k, v are 1 x H x T x Dh, the result 1 x T x H x Dh.

    The operations come as a keyword of the encoder's call, so nothing is shared between encoders.
    """
    assert attention_mask is None
    # A rotation may have left queries and keys in fp32.
    q_THC, k_THC, v_THC = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    if (shared := query.shape[1] // key.shape[1]) > 1:  # by so many queries' heads
        k_THC, v_THC = (x.repeat_interleave(shared, dim=1) for x in (k_THC, v_THC))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # As in flash attention, a window counts the token itself.
    window = None if sliding_window is None else sliding_window - 1
    out_THC = packed_operations.attend(q_THC, k_THC, v_THC, scale=scale, dropout=dropout, window=window)
    return out_THC[None], None


def _mpnet(encoder: Any, tokens: Tensor, position_T: Tensor, operations: Operations) -> Tensor:
    """Run an `MPNetModel`, whose scores have a bias for the bucket of each distance."""
    rows_T = _table_rows(encoder, position_T)
    hidden_1TD = encoder.embeddings(**_inputs(tokens), position_ids=rows_T[None])
    layers = encoder.encoder
    # transformers computes the bucket of j - i.
    distance_E = torch.arange(operations.longest - 1, -operations.longest, -1, device=position_T.device)
    bucket_E = layers.relative_position_bucket(distance_E, num_buckets=encoder.config.relative_attention_num_buckets)
    distances = Distances(bias_HE=layers.relative_attention_bias(bucket_E).t())
    for layer in layers.layer:
        own = layer.attention.attn
        q_THC, k_THC, v_THC = (_heads(f(hidden_1TD), own.num_attention_heads) for f in (own.q, own.k, own.v))
        out_THC = operations.attend(
            q_THC, k_THC, v_THC, scale=own.attention_head_size**-0.5, dropout=_rate(own.dropout), distances=distances
        )
        attended = layer.attention.dropout(own.o(out_THC.flatten(1)[None]))
        attended = layer.attention.LayerNorm(attended + hidden_1TD)
        hidden_1TD = layer.output(layer.intermediate(attended), attended)
    hidden_TD: Tensor = hidden_1TD[0]
    return hidden_TD


def _modernbert(encoder: Any, tokens: Tensor, position_T: Tensor, operations: Operations) -> Tensor:
    """Run a `ModernBertModel`: rotary positions, windows in some layers, and gated feed-forward layers."""
    config = encoder.config
    hidden_1TD = encoder.embeddings(**_inputs(tokens))
    # In fp32 whatever the type of the hidden states: the angles of far positions need it.
    like = torch.empty(0, device=position_T.device)
    angles = {
        kind: tuple(x[0] for x in encoder.rotary_emb(like, position_T[None], kind)) for kind in set(config.layer_types)
    }
    normed_1TD = encoder.layers[0].attn_norm(hidden_1TD)
    # Each sum is normed for what follows.
    norms = [*(layer.attn_norm for layer in encoder.layers[1:]), encoder.final_norm]
    for layer, next_norm in zip(encoder.layers, norms, strict=True):
        own, mlp = layer.attn, layer.mlp
        out_THC = operations.attend_rotated(
            own.Wqkv(normed_1TD)[0].view(len(position_T), 3, -1, own.head_dim),
            *angles[layer.attention_type],
            scale=own.head_dim**-0.5,
            dropout=own.attention_dropout if own.training else 0.0,
            window=None if own.sliding_window is None else own.sliding_window - 1,
        )
        added_1TD = own.out_drop(own.Wo(out_THC.flatten(1)[None]))
        hidden_1TD, normed_1TD = operations.sum_norm(hidden_1TD, added_1TD, layer.mlp_norm)
        if config.hidden_activation == "gelu":
            added_1TD = mlp.Wo(mlp.drop(operations.gate(mlp.Wi(normed_1TD))))
        else:
            added_1TD = mlp(normed_1TD)
        hidden_1TD, normed_1TD = operations.sum_norm(hidden_1TD, added_1TD, next_norm)
    hidden_TD: Tensor = normed_1TD[0]
    return hidden_TD


def _deberta(encoder: Any, tokens: Tensor, position_T: Tensor, operations: Operations) -> Tensor:
    """Run a `DebertaV2Model`, whose scores have terms of content and relative position."""
    hidden_1TD = encoder.embeddings(**_inputs(tokens), position_ids=position_T[None])
    layers = encoder.encoder
    table_WD = layers.get_rel_embedding()
    row_E = None if table_WD is None else _deberta_rows(layers, operations.longest, position_T.device)
    for layer in layers.layer:
        own = layer.attention.self
        projections = own.query_proj, own.key_proj, own.value_proj
        q_THC, k_THC, v_THC = (_heads(f(hidden_1TD), own.num_attention_heads) for f in projections)
        terms = 1 + len({"c2p", "p2c"} & set(own.pos_att_type))
        distances = None if row_E is None else _deberta_distances(own, table_WD, row_E)
        out_THC = operations.attend(
            q_THC, k_THC, v_THC,
            scale=(own.attention_head_size * terms) ** -0.5, dropout=_rate(own.dropout), distances=distances,
        )  # fmt: skip
        attended = layer.attention.output(out_THC.flatten(1)[None], hidden_1TD)
        hidden_1TD = layer.output(layer.intermediate(attended), attended)
    hidden_TD: Tensor = hidden_1TD[0]
    return hidden_TD


def _deberta_rows(layers: Any, longest: int, device: torch.device) -> Tensor:
    """Return the row of the position table for each distance, E."""
    distance_E = torch.arange(1 - longest, longest)
    half = layers.max_relative_positions
    if layers.position_buckets > 0:
        half = layers.position_buckets
        distance_E = log_buckets(distance_E, half, layers.max_relative_positions)
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
