"""The parts of the CPU's encoder, each against float64; and its dropout."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accl.kernels.cpu.compiler import FLAGS, SOURCES
from accl.kernels.cpu.encoder import EncoderContext, Shard
from accl.kernels.cpu.native import pointer

SEED, OFFSET = 2**61 + 12345, 7
SHARES = [0.0, 0.1, 0.5]


# The library does not export its parts, so they are compiled here with all names visible, and inline code with a name.
VISIBLE = [flag for flag in FLAGS if flag != "-fvisibility=hidden"]
DRAW = """
#include "shared.h"
Dropout draw_dropout(uint64_t seed, uint32_t offset, double probability) {
  return dropout_at(seed, offset, probability);
}
"""


class Dropout(ctypes.Structure):
    """``Dropout`` of c/shared.h."""

    _fields_ = [*((name, ctypes.c_int32) for name in ("key1", "key2", "threshold")), ("scale", ctypes.c_float)]


class Parts:
    """Functions of a library: whole numbers are passed as int64, fractions as double, tensors by their address."""

    def __init__(self, folder: Path, sources: list[Path], *flags: str) -> None:
        command = ["cc", *VISIBLE, "-march=native", *flags, f"-I{SOURCES}", "-o", str(folder / "parts.so")]
        subprocess.run([*command, *map(str, sources), "-lm"], check=True)
        self._library = ctypes.CDLL(str(folder / "parts.so"))

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self._library, name)
        function.restype = Dropout if name == "draw_dropout" else ctypes.c_int64
        kinds = {int: ctypes.c_int64, bool: ctypes.c_int64, float: ctypes.c_double, Tensor: c_address}
        return lambda *arguments: function(*(kinds.get(type(a), lambda a: a)(a) for a in arguments))


def c_address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(pointer(tensor))


@pytest.fixture(scope="module", name="kernels")
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "draw.c").write_text(DRAW)
    return Parts(folder, [*SOURCES.glob("*.c"), folder / "draw.c"])


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    """To a share of the largest element."""
    scale = max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


def mask_of(kernels: Any, count: int, probability: float, seed: int = SEED, offset: int = OFFSET) -> Tensor:
    ones, out = torch.ones(count), torch.empty(count)
    kernels.dropout(ones, out, count, kernels.draw_dropout(seed, offset, probability))
    return out


def draw(*shape: int, std: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * std


# --- dropout


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5, 0.9])
def test_the_right_share_is_kept_and_so_is_the_mean(kernels: Any, probability: float) -> None:
    count = 400_000
    mask = mask_of(kernels, count, probability)
    kept = float((mask > 0).float().mean())
    assert abs(kept - (1 - probability)) < 5 * math.sqrt(probability * (1 - probability) / count)
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - probability), rel=1e-6)]


def test_without_dropout_everything_is_kept(kernels: Any) -> None:
    assert torch.equal(mask_of(kernels, 1000, 0.0), torch.ones(1000))


def test_masks_are_the_same_for_a_seed_and_offset_and_unrelated_for_others(kernels: Any) -> None:
    mask, count = mask_of(kernels, 200_000, 0.5), 200_000
    assert torch.equal(mask, mask_of(kernels, count, 0.5))
    others = [(SEED + 1, OFFSET), (SEED ^ 2**40, OFFSET), (SEED, OFFSET + 1), (SEED, 0), (SEED + 1, OFFSET - 1)]
    for seed, offset in others:
        other = mask_of(kernels, count, 0.5, seed, offset)
        assert abs(float(((mask - 1) * (other - 1)).mean())) < 5 / math.sqrt(count), (seed, offset)
    for lag in (1, 2, 16, 128, 512):  # neither do neighbours in a mask know of one another
        assert abs(float(((mask[lag:] - 1) * (mask[:-lag] - 1)).mean())) < 5 / math.sqrt(count - lag), lag


def test_dropout_in_place_is_the_same(kernels: Any) -> None:
    x = draw(1003)
    expected = x * mask_of(kernels, 1003, 0.3)
    kernels.dropout(x, x, 1003, kernels.draw_dropout(SEED, OFFSET, 0.3))
    torch.testing.assert_close(x, expected)


# --- gelu


def test_gelu_and_its_slope_are_exact_also_for_extreme_inputs(kernels: Any) -> None:
    x_TF = torch.cat([torch.linspace(-30, 30, 40_001), torch.linspace(-1e-3, 1e-3, 1001), draw(998, std=3)]).view(
        24, -1
    )
    tokens, width = x_TF.shape
    bias_F, sum_F = draw(width), torch.ones(width)
    reference = (x_TF + bias_F).double().requires_grad_()
    expected = nn.functional.gelu(reference)
    d_TF = draw(tokens, width)
    (expected_d,) = torch.autograd.grad(expected, reference, d_TF.double())

    product_TF, wide_TF, found_d = x_TF.clone(), torch.empty_like(x_TF), d_TF.clone()
    kernels.gelu(product_TF, bias_F, tokens, width, wide_TF)
    kernels.gelu_backward(found_d, product_TF, tokens, width, sum_F)

    torch.testing.assert_close(wide_TF.double(), expected.detach(), rtol=2e-7, atol=4e-7)
    torch.testing.assert_close(found_d.double(), expected_d, rtol=1e-6, atol=2e-6)
    close(sum_F - 1, found_d.double().sum(0))


def test_gelu_passes_on_what_is_not_a_number(kernels: Any) -> None:
    x, bias, wide = torch.tensor([[math.nan, 1.0]]), torch.zeros(2), torch.empty(1, 2)
    kernels.gelu(x, bias, 1, 2, wide)
    assert wide.isnan().tolist() == [[True, False]]


# --- norm


@pytest.mark.parametrize("probability", SHARES)
@pytest.mark.parametrize("width", [3, 12, 128])
@pytest.mark.parametrize("std", [1e-3, 1.0, 30.0])
def test_norm_of_a_sum_and_all_its_gradients(kernels: Any, probability: float, width: int, std: float) -> None:
    tokens, eps = 37, 1e-5
    product_TD, residual_TD = draw(tokens, width, std=std), draw(tokens + 1, width, std=std)[1:].clone()
    bias_D, gain_D, shift_D, dout_TD = (
        draw(width),
        draw(width + 1)[1:],
        draw(width + 2)[2:],
        draw(tokens + 2, width)[2:],
    )
    gain_D, shift_D, dout_TD = gain_D.clone(), shift_D.clone(), dout_TD.clone()
    mask_TD = mask_of(kernels, tokens * width, probability).view(tokens, width).double()
    leaves = [t.double().requires_grad_() for t in (product_TD, residual_TD, bias_D, gain_D, shift_D)]
    product, residual, bias, gain, shift = leaves
    expected = nn.functional.layer_norm(residual + (product + bias) * mask_TD, (width,), gain, shift, eps)
    wanted = torch.autograd.grad(expected, leaves, dout_TD.double())

    out_TD, inverse_T = torch.empty_like(product_TD), torch.empty(tokens)
    drop, inputs = kernels.draw_dropout(SEED, OFFSET, probability), (product_TD, bias_D, residual_TD, gain_D, shift_D)
    kernels.layer_norm(*inputs, tokens, width, eps, drop, out_TD, inverse_T)
    close(out_TD, expected.detach(), 1e-5)
    dproduct_TD = torch.empty_like(product_TD)
    dgain_D, dshift_D, dbias_D = (torch.ones(width) for _ in range(3))
    gradients = (dproduct_TD, dgain_D, dshift_D, dbias_D)
    kernels.layer_norm_backward(dout_TD, product_TD, inverse_T, gain_D, tokens, width, drop, *gradients)
    found = (dproduct_TD, dout_TD, dbias_D - 1, dgain_D - 1, dshift_D - 1)
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs, 2e-5)


# --- attention


@dataclass(frozen=True)
class Case:
    """Rows of these lengths, and a table of ``used`` rows in which far distances share the outermost."""

    lengths: list[int]
    heads: int
    size: int
    used: int
    std: float = 1.0

    @property
    def row_of_distance(self) -> Tensor:
        longest, half = max(self.lengths), self.used // 2
        return (longest - 1 - torch.arange(2 * longest - 1)).clamp(-half, self.used - 1 - half) + half


CASES = [
    Case([1], 2, 32, 3),
    Case([16, 13, 12, 3, 2, 1], 4, 32, 31),
    Case([33, 17, 5], 2, 64, 9),
    Case([19, 16, 4], 3, 16, 12),
    Case([18, 7], 2, 12, 40),
    Case([20, 11], 2, 32, 20, std=12.0),
]


def reference(case: Case, qkv: Tensor, position: Tensor, masks: list[Tensor]) -> Tensor:
    """Context T x E, a row and a head at a time; masks: of each head and row, L x L."""
    width, longest, scale = case.heads * case.size, max(case.lengths), (3 * case.size) ** -0.5
    queries, keys = position.split(width, 1)
    heads = []
    for h in range(case.heads):
        of_head = slice(h * case.size, (h + 1) * case.size)
        rows = []
        for r, row in enumerate(qkv.split(case.lengths)):
            q, k, v = (part[:, of_head] for part in row.split(width, 1))
            place = torch.arange(len(row))
            table = case.row_of_distance[place - place[:, None] + longest - 1]
            toward = (q[:, None] * keys[:, of_head][table]).sum(-1)
            back = (k * queries[:, of_head][table]).sum(-1)
            share = (scale * (q @ k.T + toward + back)).softmax(-1)
            rows.append((share * masks[h * len(case.lengths) + r]) @ v)
        heads.append(torch.cat(rows))
    return torch.cat(heads, 1)


def shard_of(begin: Tensor, row_X: Tensor, used: int) -> Shard:
    """Sequences from each of ``begin`` to the next; the tensors must stay alive."""
    longest = (len(row_X) + 1) // 2
    sizes = {"n": len(begin) - 1, "max_length": longest, "used": used}
    return Shard(**sizes, cu_seqlens=pointer(begin), bucket_X=pointer(row_X))


@pytest.mark.parametrize("probability", SHARES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_and_all_its_gradients(kernels: Any, case: Case, probability: float) -> None:
    tokens, width, longest = sum(case.lengths), case.heads * case.size, max(case.lengths)
    qkv, position, dcontext = draw(tokens, 3 * width, std=case.std), draw(case.used, 2 * width), draw(tokens, width)
    padded = [-(-length // 16) * 16 for length in case.lengths]
    sizes = [length * wide for length, wide in zip(case.lengths, padded, strict=True)] * case.heads
    whole = mask_of(kernels, sum(sizes), probability).double().split(sizes)
    shapes = list(zip(case.lengths, padded, strict=True)) * case.heads
    masks = [m.view(shape)[:, : shape[0]] for m, shape in zip(whole, shapes, strict=True)]
    leaves = [t.double().requires_grad_() for t in (qkv, position)]
    expected = reference(case, *leaves, masks)
    wanted_qkv, wanted_position = torch.autograd.grad(expected, leaves, dcontext.double())

    begin, row_X = torch.tensor([0, *case.lengths]).cumsum(0), case.row_of_distance
    call, shard = EncoderContext(heads=case.heads, size=case.size), shard_of(begin, row_X, case.used)
    shape = (ctypes.byref(call), ctypes.byref(shard), kernels.draw_dropout(SEED, OFFSET, probability))
    # What is not written must not matter.
    scratch = torch.full((kernels.attention_scratch(longest, case.size),), math.nan)
    shares, context = torch.full((sum(sizes),), math.nan), torch.empty(tokens, width)
    kernels.attention(*shape, qkv, position, scratch, shares, context)
    close(context, expected.detach(), 1e-5)

    scratch.fill_(math.nan)
    dqkv, dposition, sum_qkv = torch.empty_like(qkv), torch.full_like(position, math.nan), torch.ones(3 * width)
    kernels.attention_backward(*shape, dcontext, qkv, position, shares, scratch, dqkv, sum_qkv, dposition)
    for ours, theirs in zip(dqkv.split(width, 1), wanted_qkv.split(width, 1), strict=True):
        close(ours, theirs, 2e-5)
    close(dposition, wanted_position, 2e-5)
    sums = dqkv.double().sum(0)
    sums[: 2 * width] += dposition.double().sum(0)
    close(sum_qkv - 1, sums, 1e-5)


def test_scores_too_far_apart_for_single_precision_leave_one_key(kernels: Any) -> None:
    qkv, position, begin = draw(5, 12), torch.zeros(1, 8), torch.tensor([0, 5])
    qkv[:, :8], qkv[3, 4:8] = 100.0, 200.0
    row_X, scratch = torch.zeros(9, dtype=torch.long), torch.empty(kernels.attention_scratch(5, 4))
    shares, context = torch.empty(5 * 16), torch.empty(5, 4)
    call, shard = EncoderContext(heads=1, size=4), shard_of(begin, row_X, 1)
    shape = (ctypes.byref(call), ctypes.byref(shard), kernels.draw_dropout(SEED, OFFSET, 0.0))
    kernels.attention(*shape, qkv, position, scratch, shares, context)
    torch.testing.assert_close(context, qkv[3, 8:].expand(5, 4))
    assert shares.view(5, 16).sum(0).tolist() == [0.0] * 3 + [5.0] + [0.0] * 12


# --- products

SHAPES = [(1, 1, 1), (13, 128, 384), (400, 128, 32), (29, 5, 33), (50, 40, 31), (12, 64, 64), (403, 17, 100)]
# What Apple's processors have, in the terms of the reference BLAS: of matrices in rows.
BLAS = """
void cblas_sgemm(int order, int turn_a, int turn_b, int rows, int columns, int depth, float alpha, const float *a,
                 int a_row, const float *b, int b_row, float beta, float *c, int c_row) {
  if (order != 101) __builtin_trap();
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      double sum = 0.0;
      for (int k = 0; k < depth; k++) {
        double factor = a[turn_a == 112 ? k * a_row + i : i * a_row + k];
        sum += factor * b[turn_b == 112 ? j * b_row + k : k * b_row + j];
      }
      c[i * c_row + j] = alpha * (float)sum + (beta == 0.0f ? 0.0f : beta * c[i * c_row + j]);
    }
}
"""


@pytest.fixture(scope="module", name="by")
def _by(request: pytest.FixtureRequest, kernels: Parts, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    if request.param == "kernels":
        return kernels
    folder = tmp_path_factory.mktemp("apple")
    (folder / "blas.c").write_text(BLAS)
    return Parts(folder, [SOURCES / "linear.c", folder / "blas.c"], "-D__APPLE__")


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("by", ["kernels", "blas"], indirect=True)
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SHAPES)
def test_products_of_a_linear_layer(by: Any, tokens: int, inputs: int, outputs: int, add: bool) -> None:
    x_TK, w_NK, bias_N, dy_TN = draw(tokens, inputs), draw(outputs, inputs), draw(outputs), draw(tokens, outputs)
    sizes = (tokens, inputs, outputs)
    # What is not written must not matter.
    scratch = torch.full((max(by.linear_scratch(*sizes), 1),), math.nan)
    for bias in (None, bias_N):
        y_TN = torch.full_like(dy_TN, math.nan)
        by.linear(x_TK, w_NK, bias, *sizes, scratch, y_TN)
        close(y_TN, x_TK.double() @ w_NK.double().T + (0.0 if bias is None else bias))
    dx_TK, dw_NK = torch.full_like(x_TK, 1.0 if add else math.nan), torch.ones_like(w_NK)
    by.linear_backward_input(dy_TN, w_NK, *sizes, add, scratch, dx_TK)
    by.linear_backward_weight(dy_TN, x_TK, *sizes, scratch, dw_NK)
    close(dx_TK, dy_TN.double() @ w_NK.double() + add)
    close(dw_NK, dy_TN.double().T @ x_TK.double() + 1)
