"""Triton kernels below and above the layers: embeddings of packed tokens, mean pooling of packed sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import drop, mask_constants
from accl.kernels.triton.layernorm import layer_norm, layer_norm_backward

# Tokens that a program owns in the embedding's backward pass, and sums to one row of partial sums.
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


@triton.jit(do_not_specialize=["dropout_offset"])
def _embed(
    ids_ptr, row_ptr, p_ptr, gain_ptr, bias_ptr, out_ptr, mean_ptr, rstd_ptr, seed_ptr, dropout_offset, eps,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = dropout(LayerNorm(p[row[ids]])), T x D of any type; a program owns one token.

    p: V' x D in fp32. Stores the mean and rstd of every token, T in fp32.
    """
    t = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    mask = d < D
    word = tl.load(p_ptr + tl.load(row_ptr + tl.load(ids_ptr + t)) * D + d, mask=mask, other=0.0)
    out, mean, rstd = layer_norm(word, gain_ptr, bias_ptr, d, mask, eps, D)
    out = drop(out, seed_ptr, dropout_offset, t * D + d, THRESHOLD, KEEP_PROB)
    tl.store(out_ptr + t * D + d, out.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + t, mean)
    tl.store(rstd_ptr + t, rstd)


@triton.jit(do_not_specialize=["dropout_offset"])
def _embed_backward(
    dout_ptr, ids_ptr, row_ptr, p_ptr, gain_ptr, mean_ptr, rstd_ptr, g_ptr, partial_ptr, seed_ptr, dropout_offset, T,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """g[row[ids]] += gradient of `_embed`, V' x D in fp32, by atomic additions; a program owns ROWS tokens.

    Each program also stores a row of partial sums over its tokens, 2 D in fp32: of dout x_hat (to the gain) and of
    dout (to the bias).
    """
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    valid = t < T
    mask = valid[:, None] & (d < D)[None, :]
    row = tl.load(row_ptr + tl.load(ids_ptr + t, mask=valid, other=0), mask=valid, other=0)
    index = row[:, None] * D + d[None, :]
    dout = tl.load(dout_ptr + t[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    dout = drop(dout, seed_ptr, dropout_offset, t[:, None] * D + d[None, :], THRESHOLD, KEEP_PROB)
    word = tl.load(p_ptr + index, mask=mask, other=0.0)
    dword, x_hat = layer_norm_backward(dout, word, t, d, gain_ptr, mean_ptr, rstd_ptr, mask, valid, D)
    tl.atomic_add(g_ptr + index, dword, mask=mask, sem="relaxed")
    partial = partial_ptr + tl.program_id(0) * 2 * D + d
    tl.store(partial, tl.sum(dout * x_hat, 0), mask=d < D)
    tl.store(partial + D, tl.sum(dout, 0), mask=d < D)


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
    gain: Tensor,
    bias: Tensor,
    eps: float,
    seed: Tensor,
    dropout_offset: int,
    dropout: float,
    out: Tensor,
) -> SavedEmbedding:
    """Compute out = dropout(LayerNorm(word embeddings)), T x D; return what `embed_backward` needs.

    Args:
        ids_T: int32; token ids. gain, bias: D, fp32. eps: of the norm. out: T x D, of any type.
        dropout_offset, dropout: as in `accl.kernels.triton.pointwise.add_norm`.
    """
    tokens, width = out.shape
    mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=out.device) for _ in range(2))
    _embed[(tokens,)](
        ids_T, words.row_V, words.values, gain, bias, out, mean, rstd, seed, dropout_offset, eps,
        D=width, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return SavedEmbedding(ids_T, mean, rstd)


def embed_backward(
    dout: Tensor,
    saved: SavedEmbedding,
    words: WordEmbedding,
    gain: Tensor,
    seed: Tensor,
    dropout_offset: int,
    dropout: float,
) -> Tensor:
    """Add the gradient of `embed` to ``words.gradients``.

    Args:
        dout: T x D. The others: as given to and returned by `embed`.

    Returns:
        partial sums, P x 2 D in fp32; summed over P these are the gradients of gain and bias.
    """
    tokens, width = dout.shape
    partial = torch.empty(triton.cdiv(tokens, ROWS), 2 * width, dtype=torch.float32, device=dout.device)
    _embed_backward[(len(partial),)](
        dout, saved.ids_T, words.row_V, words.values, gain, saved.mean_T, saved.rstd_T, words.gradients, partial, seed,
        dropout_offset, tokens,
        D=width, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), ROWS=ROWS, num_warps=4,
    )  # fmt: skip
    return partial


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
