"""Triton kernels below and above the layers: embeddings of packed tokens, mean pooling of packed sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.dropout import drop, mask_constants
from accl.kernels.triton.layernorm import layer_norm, layer_norm_backward

# Tokens that a program owns in the embedding's backward pass.
ROWS = 4


@dataclass(frozen=True)
class WordEmbedding:
    """Rows of a word embedding that a corpus uses, in fp32, with their gradients.

    A row that no question uses gets no gradient, and AdamW without weight decay leaves it as it is, to the bit. So only
    the others need a place beside their gradients and moments: MMLU uses a quarter of DeBERTa-v3's 128,100 rows.

    Attributes:
        row_V: int64; row of each token id among the used ones. values, gradients: V' x D.
    """

    row_V: Tensor
    values: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class AddedRows:
    """Rows that are added to each token's word: that of its position in its sequence, and one that all tokens share.

    Attributes:
        positions, dpositions: rows x D, fp32; table of positions, and its gradient, which is added to.
        first: row of a sequence's first token.
        shared, dshared: D, fp32; the token type's row, and its gradient, which is added to. None where an encoder has
            no token types.
    """

    positions: Tensor
    dpositions: Tensor
    first: int
    shared: Tensor | None
    dshared: Tensor | None


@triton.jit(do_not_specialize=["dropout_offset", "first"])
def _embed(
    ids_ptr, row_ptr, p_ptr, start_ptr, positions_ptr, shared_ptr, first, gain_ptr, bias_ptr, out_ptr, mean_ptr,
    rstd_ptr, seed_ptr, dropout_offset, eps,
    D: tl.constexpr, POSITIONS: tl.constexpr, SHARED: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """out = dropout(LayerNorm(p[row[ids]] + positions[t - start + first] + shared)), T x D of any type.

    p: V' x D in fp32; positions and shared: see `AddedRows`, read if POSITIONS and SHARED. A program owns one token.
    Stores the mean and rstd of every token, T in fp32.
    """
    t = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    mask = d < D
    total = tl.load(p_ptr + tl.load(row_ptr + tl.load(ids_ptr + t)) * D + d, mask=mask, other=0.0)
    if POSITIONS:
        row = t - tl.load(start_ptr + t) + first
        total += tl.load(positions_ptr + row * D + d, mask=mask, other=0.0)
    if SHARED:
        total += tl.load(shared_ptr + d, mask=mask, other=0.0)
    out, mean, rstd = layer_norm(total, gain_ptr, bias_ptr, d, mask, eps, D)
    out = drop(out, seed_ptr, dropout_offset, t * D + d, THRESHOLD, KEEP_PROB)
    tl.store(out_ptr + t * D + d, out.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + t, mean)
    tl.store(rstd_ptr + t, rstd)


@triton.jit(do_not_specialize=["dropout_offset", "first"])
def _embed_backward(
    dout_ptr, ids_ptr, row_ptr, p_ptr, start_ptr, positions_ptr, shared_ptr, first, gain_ptr, mean_ptr, rstd_ptr,
    g_ptr, dpositions_ptr, dshared_ptr, dgain_ptr, dbias_ptr, seed_ptr, dropout_offset, T,
    D: tl.constexpr, POSITIONS: tl.constexpr, SHARED: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """g[row[ids]] += dx and dpositions[t - start + first] += dx, in fp32, by atomic additions, with the gradient dx of
    `_embed` to the sum of a token's rows; a program owns ROWS tokens.

    Sums over tokens are added to dgain (of dout x_hat), dbias (of dout) and, if SHARED, dshared (of dx), D in fp32.
    """
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    valid = t < T
    mask = valid[:, None] & (d < D)[None, :]
    row = tl.load(row_ptr + tl.load(ids_ptr + t, mask=valid, other=0), mask=valid, other=0)
    word = row[:, None] * D + d[None, :]
    total = tl.load(p_ptr + word, mask=mask, other=0.0)
    if POSITIONS:
        position = (t - tl.load(start_ptr + t, mask=valid, other=0) + first)[:, None] * D + d[None, :]
        total += tl.load(positions_ptr + position, mask=mask, other=0.0)
    if SHARED:
        # Outside of the mask too the values must be 0.
        total = tl.where(mask, total + tl.load(shared_ptr + d, mask=d < D, other=0.0)[None, :], 0.0)
    dout = tl.load(dout_ptr + t[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    dout = drop(dout, seed_ptr, dropout_offset, t[:, None] * D + d[None, :], THRESHOLD, KEEP_PROB)
    dx, x_hat = layer_norm_backward(dout, total, t, d, gain_ptr, mean_ptr, rstd_ptr, mask, valid, D)
    tl.atomic_add(g_ptr + word, dx, mask=mask, sem="relaxed")
    if POSITIONS:
        tl.atomic_add(dpositions_ptr + position, dx, mask=mask, sem="relaxed")
    tl.atomic_add(dgain_ptr + d, tl.sum(dout * x_hat, 0), mask=d < D, sem="relaxed")
    tl.atomic_add(dbias_ptr + d, tl.sum(dout, 0), mask=d < D, sem="relaxed")
    if SHARED:
        tl.atomic_add(dshared_ptr + d, tl.sum(tl.where(mask, dx, 0.0), 0), mask=d < D, sem="relaxed")


@dataclass(frozen=True)
class SavedEmbedding:
    """Values that the backward pass of `embed` needs.

    Attributes:
        ids_T: int32; token ids. mean_T, rstd_T: fp32; mean and reciprocal standard deviation of each token's row.
    """

    ids_T: Tensor
    mean_T: Tensor
    rstd_T: Tensor


def embed(
    ids_T: Tensor,
    words: WordEmbedding,
    added: AddedRows | None,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    sequences: PackedSequences,
    dropout_offset: int,
    dropout: float,
    out: Tensor,
) -> SavedEmbedding:
    """Compute out = dropout(LayerNorm(words and added rows)), T x D; return what `embed_backward` needs.

    Args:
        ids_T: int32; token ids. gain, bias: D, fp32. eps: of the norm. out: T x D, of any type.
        dropout_offset, dropout: as in `accl.kernels.triton.pointwise.add_norm`.
    """
    tokens, width = out.shape
    mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=out.device) for _ in range(2))
    rows, constants = _added_arguments(sequences, added)
    _embed[(tokens,)](
        ids_T, words.row_V, words.values, *rows, gain, bias, out, mean, rstd, sequences.seed, dropout_offset, eps,
        D=width, **constants, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return SavedEmbedding(ids_T, mean, rstd)


def embed_backward(
    dout: Tensor,
    saved: SavedEmbedding,
    words: WordEmbedding,
    added: AddedRows | None,
    gain: Tensor,
    sequences: PackedSequences,
    dropout_offset: int,
    dropout: float,
    dnorm: tuple[Tensor, Tensor],
) -> None:
    """Add the gradients of `embed` to ``words.gradients``, to those of the rows added, and to ``dnorm``.

    Args:
        dout: T x D. dnorm: D, fp32; of gain and bias. The others: as given to and returned by `embed`.
    """
    tokens, width = dout.shape
    rows, constants = _added_arguments(sequences, added)
    drows = (None, None) if added is None else (added.dpositions, added.dshared)
    _embed_backward[(triton.cdiv(tokens, ROWS),)](
        dout, saved.ids_T, words.row_V, words.values, *rows, gain, saved.mean_T, saved.rstd_T, words.gradients,
        *drows, *dnorm, sequences.seed, dropout_offset, tokens,
        D=width, **constants, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), ROWS=ROWS, num_warps=4,
    )  # fmt: skip


def _added_arguments(
    sequences: PackedSequences, added: AddedRows | None
) -> tuple[tuple[Tensor | int | None, ...], dict[str, bool]]:
    """Return the arguments of both kernels, and their constants, that stand for the rows added."""
    if added is None:
        return (None, None, None, 0), {"POSITIONS": False, "SHARED": False}
    rows = (sequences.start_T, added.positions, added.shared, added.first)
    return rows, {"POSITIONS": True, "SHARED": added.shared is not None}


@triton.jit
def _sequence_bounds(n, cu_seqlens_ptr, inverse_perm_ptr, segments):
    """Return start and end in the stream of output sequence n, whose segments lie side by side."""
    first = tl.load(inverse_perm_ptr + n) * segments
    return tl.load(cu_seqlens_ptr + first), tl.load(cu_seqlens_ptr + first + segments)


@triton.jit
def _mean_pool(
    hidden_ptr, cu_seqlens_ptr, inverse_perm_ptr, out_ptr, segments,
    D: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """out[n] = mean of hidden over the tokens of sequence inverse_perm[n]; T x D of any type to N x D in fp32.

    A program owns BLOCK channels of one sequence, and reads TOKENS tokens at a time.
    """
    n = tl.program_id(0)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, end = _sequence_bounds(n, cu_seqlens_ptr, inverse_perm_ptr, segments)
    total = tl.zeros([TOKENS, BLOCK], tl.float32)
    for first in range(start, end, TOKENS):
        t = first + tl.arange(0, TOKENS)
        mask = (t < end)[:, None] & (d < D)[None, :]
        total += tl.load(hidden_ptr + t[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + n * D + d, tl.sum(total, 0) / tl.maximum(end - start, 1), mask=d < D)


@triton.jit
def _mean_pool_backward(
    dout_ptr, cu_seqlens_ptr, inverse_perm_ptr, dhidden_ptr, segments,
    D: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """dhidden[t] = dout[n] / length for the tokens t of sequence inverse_perm[n]; N x D in fp32 to T x D of any type.

    A program owns TOKENS tokens of one sequence.
    """
    n = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    start, end = _sequence_bounds(n, cu_seqlens_ptr, inverse_perm_ptr, segments)
    t = start + tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    share = tl.load(dout_ptr + n * D + d, mask=d < D, other=0.0) / tl.maximum(end - start, 1)
    dhidden = tl.broadcast_to(share[None, :], [TOKENS, BLOCK]).to(dhidden_ptr.dtype.element_ty)
    tl.store(dhidden_ptr + t[:, None] * D + d[None, :], dhidden, mask=(t < end)[:, None] & (d < D)[None, :])


def mean_pool(hidden_TD: Tensor, cu_seqlens: Tensor, segments: int, inverse_perm_N: Tensor) -> Tensor:
    """Return the mean hidden state of each sequence, N x D in fp32.

    Args:
        cu_seqlens: S + 1, int64; index in the stream at which each segment begins, and the end of the last.
        segments: number of consecutive segments that are one sequence.
        inverse_perm_N: int64; index in the stream of each sequence of the result.
    """
    width = hidden_TD.shape[1]
    out = torch.empty(len(inverse_perm_N), width, dtype=torch.float32, device=hidden_TD.device)
    _mean_pool[(len(inverse_perm_N), triton.cdiv(width, 64))](
        hidden_TD, cu_seqlens, inverse_perm_N, out, segments, D=width, BLOCK=64, TOKENS=64, num_warps=4
    )
    return out


def mean_pool_backward(
    dout_ND: Tensor, cu_seqlens: Tensor, segments: int, inverse_perm_N: Tensor, longest: int, dhidden_TD: Tensor
) -> None:
    """Write the gradient of `mean_pool` to the tokens of all sequences; padding is left as it is.

    Args:
        dout_ND: fp32. longest: number of tokens that no sequence exceeds. The others: as in `mean_pool`.
    """
    width, tokens = dout_ND.shape[1], 16
    _mean_pool_backward[(len(inverse_perm_N), triton.cdiv(longest, tokens))](
        dout_ND, cu_seqlens, inverse_perm_N, dhidden_TD, segments,
        D=width, BLOCK=triton.next_power_of_2(width), TOKENS=tokens, num_warps=4,
    )  # fmt: skip
