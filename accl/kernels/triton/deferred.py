"""AdamW for the rows of a word embedding: a step updates the rows that it reads, and others when they are read again.

A batch of 16 questions has one in fifty of MMLU's words. In the steps between, a row's gradient is 0, but its moments
still move it. These updates are made up for before the row is read, one after the other and with the rates that each
step had, so that values and moments are those of `accl.kernels.triton.adamw.adamw`. Until then the gradient of the
row's last batch is kept in its place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.adamw import AdamWParams
from accl.kernels.triton.embedding import WordEmbedding

# Each row is updated at least once in so many steps, in turns, so that no program has many updates to make up for.
PERIOD = 32
# Rows whose squares one program adds up.
NORM_ROWS = 8


@triton.jit(do_not_specialize=["tokens", "period"])
def _catch_up(
    ids_ptr, row_ptr, tokens, period, rows, p_ptr, g_ptr, m_ptr, v_ptr, done_ptr, clock_ptr, rates_ptr, beta1, beta2,
    eps, D: tl.constexpr, PERIOD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update one row of p and moments m, v, V' x D in fp32, by its gradient g and all steps since; set g to 0.

    Program i < tokens owns the row of token ids[i]; program tokens + j owns row j period + clock % period. With
    tokens = 0 and period = 1 these are all rows. done: V', int32; the steps that each row has. clock: steps taken.
    rates: PERIOD x 3, see `DeferredRows`.
    """
    i = tl.program_id(0)
    clock = tl.load(clock_ptr)
    row = (i - tokens) * period + clock % period
    if i < tokens:
        row = tl.load(row_ptr + tl.load(ids_ptr + i)).to(tl.int32)
    if row < rows:
        # Of several programs with the same row, the first one finds steps to make up for.
        done = tl.atomic_xchg(done_ptr + row, clock, sem="relaxed")
        if done < clock:
            d = tl.arange(0, BLOCK)
            mask = d < D
            index = row * D + d
            p, g = tl.load(p_ptr + index, mask=mask, other=0.0), tl.load(g_ptr + index, mask=mask, other=0.0)
            m, v = tl.load(m_ptr + index, mask=mask, other=0.0), tl.load(v_ptr + index, mask=mask, other=0.0)
            for step in range(done, clock):
                rates = rates_ptr + step % PERIOD * 3
                g *= tl.load(rates)
                m = beta1 * m + (1 - beta1) * g
                v = beta2 * v + (1 - beta2) * g * g
                p -= tl.load(rates + 1) * m / (tl.sqrt(v) * tl.load(rates + 2) + eps)
                g = tl.zeros([BLOCK], tl.float32)
            tl.store(p_ptr + index, p, mask=mask)
            tl.store(g_ptr + index, g, mask=mask)
            tl.store(m_ptr + index, m, mask=mask)
            tl.store(v_ptr + index, v, mask=mask)


@triton.jit
def _record(rates_ptr, norm_ptr, clock_ptr, adamw_rates_ptr, max_norm, PERIOD: tl.constexpr):
    """Keep what a row's update needs of this step, see `DeferredRows`, and count the step."""
    clock = tl.load(clock_ptr)
    rates = rates_ptr + clock % PERIOD * 3
    tl.store(rates, tl.minimum(max_norm / (tl.load(norm_ptr) + 1e-6), 1.0))
    tl.store(rates + 1, tl.load(adamw_rates_ptr + 1).to(tl.float32))
    tl.store(rates + 2, tl.load(adamw_rates_ptr + 2).to(tl.float32))
    tl.store(clock_ptr, clock + 1)


@triton.jit
def _row_square_sums(
    g_ptr, done_ptr, clock_ptr, out_ptr, rows, D: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """out[b] = sum of squares of block b of ROWS rows of g, V' x D in fp32, of rows without steps to make up for."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    read = tl.load(done_ptr + row, mask=row < rows, other=-1) == tl.load(clock_ptr)
    value = tl.load(g_ptr + row[:, None] * D + d[None, :], mask=read[:, None] & (d < D)[None, :], other=0.0)
    tl.store(out_ptr + tl.program_id(0), tl.sum(value * value))


class DeferredRows:
    """Updates of a word embedding without weight decay.

    A step calls `catch_up` before it reads rows, `square_sums` when it has their gradients, and `record` when it has
    the norm of all gradients; all three can be captured.

    Args:
        words: rows and gradients; these are 0 at first, and afterwards set to 0 by `catch_up` alone.
        exp_avg, exp_avg_sq: V' x D, fp32; both moments.
    """

    def __init__(self, words: WordEmbedding, exp_avg: Tensor, exp_avg_sq: Tensor, params: AdamWParams) -> None:
        self._words, self._moments, self._params = words, (exp_avg, exp_avg_sq), params
        rows, device = len(words.values), words.values.device
        self._done = torch.zeros(rows, dtype=torch.int32, device=device)
        self._clock = torch.zeros(1, dtype=torch.int32, device=device)
        # Of the last PERIOD steps: the factor of clipping, lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
        self._rates = torch.zeros(PERIOD, 3, device=device)

    def catch_up(self, ids_T: Tensor) -> None:
        """Bring the rows of these token ids up to date, with gradient 0, and one in PERIOD of all rows."""
        self._launch(ids_T, len(ids_T), PERIOD)

    def flush(self) -> None:
        """Bring all rows up to date."""
        self._launch(self._done, 0, 1)

    def square_sums(self) -> Tensor:
        """Return sums of squares, fp32, whose sum is the square of the norm of this step's gradients."""
        rows, width = self._words.values.shape
        out = torch.empty(triton.cdiv(rows, NORM_ROWS), device=self._done.device)
        _row_square_sums[(len(out),)](
            self._words.gradients, self._done, self._clock, out, rows,
            D=width, ROWS=NORM_ROWS, BLOCK=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
        return out

    def record(self) -> None:
        """Count a step with the rates and the norm that the parameters of AdamW hold."""
        params = self._params
        _record[(1,)](self._rates, params.norm, self._clock, params.rates, params.max_norm, PERIOD=PERIOD, num_warps=1)

    def _launch(self, ids_T: Tensor, tokens: int, period: int) -> None:
        words, params = self._words, self._params
        rows, width = words.values.shape
        _catch_up[(tokens + triton.cdiv(rows, period),)](
            ids_T, words.row_V, tokens, period, rows, words.values, words.gradients, *self._moments, self._done,
            self._clock, self._rates, params.beta1, params.beta2, params.eps,
            D=width, PERIOD=PERIOD, BLOCK=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
