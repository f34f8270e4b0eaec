"""What stands below and above the layers: embeddings of packed tokens, means of packed sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.adamw import Rule, clipped, stepped
from accl.kernels.triton.dropout import keep, threshold

# Tokens that a program takes of the embedding's backward pass; of its sums over tokens it leaves one row.
ROWS = 4


@dataclass(frozen=True)
class Words:
    """The word embedding V' x D in fp32, and what its optimizer knows of it.

    Attributes:
        place_V: row of each token id. values, gradients, first, second: V' x D; with both moments of AdamW.
    """

    place_V: Tensor
    values: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor


@triton.jit(do_not_specialize=["site"])
def _embed(
    ids_ptr, place_ptr, p_ptr, g_ptr, m_ptr, v_ptr, rates_ptr, norm_ptr, gain_ptr, bias_ptr, out_ptr, mean_ptr,
    rstd_ptr, seed_ptr, site, layer_eps, max_norm, beta1, beta2, eps,
    OWED: tl.constexpr, D: tl.constexpr, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    inside = d < D
    at = tl.load(place_ptr + tl.load(ids_ptr + t)) * D + d
    word = tl.load(p_ptr + at, mask=inside, other=0.0)
    if OWED:  # noqa: SIM102  # known when this is compiled; the other is not
        if tl.load(rates_ptr + 3) > 0:
            g = tl.load(g_ptr + at, mask=inside, other=0.0) * clipped(norm_ptr, max_norm)
            m, v = tl.load(m_ptr + at, mask=inside, other=0.0), tl.load(v_ptr + at, mask=inside, other=0.0)
            word, _, _ = stepped(word, g, m, v, rates_ptr, beta1, beta2, eps, 0.0)
    mean = tl.sum(word, 0) / D
    centred = tl.where(inside, word - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / D + layer_eps)
    gain, bias = tl.load(gain_ptr + d, mask=inside), tl.load(bias_ptr + d, mask=inside)
    out = centred * rstd * gain + bias
    if THRESHOLD > 0:
        out = tl.where(keep(seed_ptr, site, t * D + d, THRESHOLD), out * (1 / KEPT), 0.0)
    tl.store(out_ptr + t * D + d, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + t, mean)
    tl.store(rstd_ptr + t, rstd)


@triton.jit(do_not_specialize=["site"])
def _embed_backward(
    dout_ptr, ids_ptr, place_ptr, p_ptr, gain_ptr, mean_ptr, rstd_ptr, g_ptr, partial_ptr, seed_ptr, site, T,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    here = t < T
    inside = here[:, None] & (d < D)[None, :]
    at = tl.load(place_ptr + tl.load(ids_ptr + t, mask=here, other=0), mask=here, other=0)[:, None] * D + d[None, :]
    gain = tl.load(gain_ptr + d, mask=d < D, other=0.0)
    dout = tl.load(dout_ptr + t[:, None] * D + d[None, :], mask=inside, other=0.0).to(tl.float32)
    if THRESHOLD > 0:
        kept = keep(seed_ptr, site, t[:, None] * D + d[None, :], THRESHOLD)
        dout = tl.where(kept, dout * (1 / KEPT), 0.0)
    mean, rstd = tl.load(mean_ptr + t, mask=here, other=0.0), tl.load(rstd_ptr + t, mask=here, other=0.0)
    word = tl.load(p_ptr + at, mask=inside, other=0.0)
    unit = tl.where(inside, (word - mean[:, None]) * rstd[:, None], 0.0)
    dunit = dout * gain[None, :]
    along = tl.sum(dunit * unit, 1)[:, None] / D
    dword = (dunit - tl.sum(dunit, 1)[:, None] / D - unit * along) * rstd[:, None]
    tl.atomic_add(g_ptr + at, dword, mask=inside, sem="relaxed")
    partial = partial_ptr + tl.program_id(0) * 2 * D + d
    tl.store(partial, tl.sum(dout * unit, 0), mask=d < D)
    tl.store(partial + D, tl.sum(dout, 0), mask=d < D)


@dataclass(frozen=True)
class Embedded:
    """What the backward pass of `embed` needs: of every token, its id, and mean and reciprocal deviation of its row."""

    ids_T: Tensor
    mean_T: Tensor
    rstd_T: Tensor


def embed(
    ids_T: Tensor,
    words: Words,
    gain: Tensor,
    bias: Tensor,
    layer_eps: float,
    seed: Tensor,
    site: int,
    dropout: float,
    out: Tensor,
    rule: Rule | None,
) -> Embedded:
    """out = dropout(LayerNorm(word embeddings)), T x D.

    Args:
        rule: an update by which the words are behind: what comes out is as if it had been done, but nothing is written
            to them. None: they are up to date.
    """
    tokens, width = out.shape
    mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=out.device) for _ in range(2))
    rates, norm, *numbers = rule.arguments if rule else (mean, mean, 0.0, 0.0, 0.0, 0.0)
    _embed[(tokens,)](
        ids_T, words.place_V, words.values, words.gradients, words.first, words.second, rates, norm, gain, bias, out,
        mean, rstd, seed, site, layer_eps, *numbers,
        OWED=rule is not None, D=width, THRESHOLD=threshold(dropout), KEPT=1 - dropout,
        BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return Embedded(ids_T, mean, rstd)


def embed_backward(
    dout: Tensor, embedded: Embedded, words: Words, gain: Tensor, seed: Tensor, site: int, dropout: float
) -> Tensor:
    """Adds the gradient of `embed` to the words'; returns partial sums, n x 2 D, of those of gain and bias."""
    tokens, width = dout.shape
    partial = torch.empty(triton.cdiv(tokens, ROWS), 2 * width, dtype=torch.float32, device=dout.device)
    _embed_backward[(len(partial),)](
        dout, embedded.ids_T, words.place_V, words.values, gain, embedded.mean_T, embedded.rstd_T, words.gradients,
        partial, seed, site, tokens,
        D=width, THRESHOLD=threshold(dropout), KEPT=1 - dropout, BLOCK=triton.next_power_of_2(width), ROWS=ROWS,
        num_warps=4,
    )  # fmt: skip
    return partial


@triton.jit
def _means(
    hidden_ptr, begin_ptr, place_ptr, out_ptr, segments, D: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr
):
    n = tl.program_id(0)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sequence = tl.load(place_ptr + n)
    begin, end = tl.load(begin_ptr + sequence * segments), tl.load(begin_ptr + (sequence + 1) * segments)
    total = tl.zeros([TOKENS, BLOCK], tl.float32)
    for first in range(begin, end, TOKENS):
        t = first + tl.arange(0, TOKENS)
        inside = (t < end)[:, None] & (d < D)[None, :]
        total += tl.load(hidden_ptr + t[:, None] * D + d[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + n * D + d, tl.sum(total, 0) / tl.maximum(end - begin, 1), mask=d < D)


@triton.jit
def _means_backward(
    dout_ptr, begin_ptr, place_ptr, dhidden_ptr, segments, D: tl.constexpr, BLOCK: tl.constexpr, TOKENS: tl.constexpr
):
    n = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    sequence = tl.load(place_ptr + n)
    begin, end = tl.load(begin_ptr + sequence * segments), tl.load(begin_ptr + (sequence + 1) * segments)
    t = begin + tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    share = tl.load(dout_ptr + n * D + d, mask=d < D, other=0.0) / tl.maximum(end - begin, 1)
    dhidden = tl.broadcast_to(share[None, :], [TOKENS, BLOCK]).to(dhidden_ptr.dtype.element_ty)
    tl.store(dhidden_ptr + t[:, None] * D + d[None, :], dhidden, mask=(t < end)[:, None] & (d < D)[None, :])


def means(hidden_TD: Tensor, begin: Tensor, segments: int, place_N: Tensor) -> Tensor:
    """Mean hidden state of each sequence, N x D in fp32, in the order of ``place_N``.

    Args:
        begin: where each segment begins in the stream, and the last one ends; ``segments`` of them are a sequence.
    """
    width = hidden_TD.shape[1]
    out = torch.empty(len(place_N), width, dtype=torch.float32, device=hidden_TD.device)
    _means[(len(place_N), triton.cdiv(width, 64))](
        hidden_TD, begin, place_N, out, segments, D=width, BLOCK=64, TOKENS=64, num_warps=4
    )
    return out


def means_backward(
    dout_ND: Tensor, begin: Tensor, segments: int, place_N: Tensor, longest: int, dhidden_TD: Tensor
) -> None:
    """The gradient of `means`, written to the tokens of the sequences, none of which is longer than ``longest``."""
    width, tokens = dout_ND.shape[1], 16
    _means_backward[(len(place_N), triton.cdiv(longest, tokens))](
        dout_ND, begin, place_N, dhidden_TD, segments,
        D=width, BLOCK=triton.next_power_of_2(width), TOKENS=tokens, num_warps=4,
    )  # fmt: skip
