"""Attention on packed sequences against its formula, on a GPU, or in Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from accl.kernels.triton.varlen import DistanceBias

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="torch sees no NVIDIA GPU"),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
BUCKETS, LONGEST = 8, 256


def sequences_of(lengths: list[int], tokens: int) -> Any:
    """Sequences of these lengths and padding behind them, in T tokens, with a seed."""
    from accl.kernels.triton.attention import PackedSequences

    start = torch.arange(tokens, dtype=torch.int32)
    end = start + 1
    for first, last in itertools.pairwise(np.cumsum([0, *lengths]).tolist()):
        start[first:last], end[first:last] = first, last
    return PackedSequences(start.to(DEVICE), end.to(DEVICE), torch.tensor([7], device=DEVICE))


def distance_bias(table_KH: Tensor) -> DistanceBias:
    """A bias of K buckets, the far ones of which hold many distances."""
    from accl.kernels.triton.varlen import DistanceBias

    distance = torch.arange(-LONGEST, LONGEST, device=DEVICE)
    bucket = (distance.sign() * (distance.abs() + 1).log2().ceil() + BUCKETS // 2).clamp(0, BUCKETS - 1).int()
    return DistanceBias(table_KH[bucket.long()].T.float().contiguous(), bucket, BUCKETS)


def formula(
    parts: tuple[Tensor, ...], sequences: Any, scale: float, window: int | None, bucket: Tensor, kept: Tensor | None
) -> Tensor:
    """Compute attention, T x H x Dh; ``kept``, H x T x T, multiplies the weights."""
    q, k, v, table_KH = parts
    at = torch.arange(len(q), device=DEVICE)
    distance = at[:, None] - at
    visible = (at >= sequences.start_T[:, None]) & (at < sequences.end_T[:, None])
    if window is not None:
        visible &= distance.abs() <= window
    score = torch.einsum("ihd,jhd->hij", q, k) * scale
    score = score + table_KH[bucket[(distance + LONGEST).clamp(0, 2 * LONGEST - 1)].long()].permute(2, 0, 1)
    weight = score.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weight if kept is None else weight * kept, v)


class Case:
    """Random inputs of attention: views of joined queries, keys and values, and a bias of buckets."""

    def __init__(
        self, heads: int, width: int, lengths: list[int], tokens: int, dtype: torch.dtype, joined: bool = True
    ):
        torch.manual_seed(0)
        self.sequences, self.scale, self.joined = sequences_of(lengths, tokens), width**-0.5, joined
        shape = (tokens, 3, heads, width) if joined else (3, heads, tokens, width)
        self.qkv, self.table_KH = (
            torch.randn(shape, device=DEVICE).to(dtype),
            torch.randn(BUCKETS, heads, device=DEVICE),
        )
        self.dout = torch.randn(tokens, heads, width, device=DEVICE).to(dtype)

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        return (qkv if self.joined else qkv.permute(2, 0, 1, 3)).unbind(1)

    def computed(
        self, dropout: float = 0.0, window: int | None = None, bias: bool = False, offset: int = 5
    ) -> dict[str, Tensor]:
        """The kernels' output and gradients."""
        from accl.kernels.triton.varlen import attend, attend_backward, bias_partials

        distances = distance_bias(self.table_KH) if bias else None
        options: dict[str, Any] = {"scale": self.scale, "dropout_offset": offset, "dropout": dropout, "window": window}
        q, k, v = self.split(self.qkv)
        attended = attend(q, k, v, self.sequences, **options, bias=distances)
        dqkv = torch.full_like(self.qkv, torch.nan)
        partials = bias_partials(len(q), q.dtype)
        dbias = torch.full((partials, q.shape[1], BUCKETS), torch.nan, device=DEVICE) if bias else None
        gradients = self.split(dqkv)
        attend_backward(
            self.dout, q, k, v, attended, *gradients, self.sequences, **options, bias=distances, dbias=dbias
        )
        parts = {"out": attended.out, **dict(zip(("dq", "dk", "dv"), gradients, strict=True))}
        return parts if dbias is None else parts | {"dbias": dbias.sum(0).T}

    def expected(self, window: int | None = None, bias: bool = False, kept: Tensor | None = None) -> dict[str, Tensor]:
        """The same by the formula, in float64."""
        table_KH = self.table_KH.double() if bias else torch.zeros_like(self.table_KH).double()
        leaves = [part.double().requires_grad_() for part in (*self.split(self.qkv), table_KH)]
        bucket = distance_bias(self.table_KH).bucket
        out = formula(tuple(leaves), self.sequences, self.scale, window, bucket, kept)
        gradients = torch.autograd.grad(out, leaves, self.dout.double())
        parts = {"out": out.detach(), **dict(zip(("dq", "dk", "dv", "dbias"), gradients, strict=True))}
        return parts if bias else {name: value for name, value in parts.items() if name != "dbias"}


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    """Compare |actual - expected| / |expected| with the limit, which NaN never meets."""
    assert actual.keys() == expected.keys()
    error = {n: float((actual[n].double() - e).norm() / e.norm().clamp(min=1e-30)) for n, e in expected.items()}
    assert {name: value for name, value in error.items() if not value < limit} == {}


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("window", [None, 20], ids=["global", "local"])
@pytest.mark.parametrize(
    ("heads", "width", "lengths", "tokens"), [(2, 16, [37, 1, 129, 64], 256), (3, 64, [70, 33, 5, 1], 128)]
)
def test_attention_and_its_gradients_are_those_of_the_formula(
    heads: int, width: int, lengths: list[int], tokens: int, window: int | None, bias: bool
) -> None:
    case = Case(heads, width, lengths, tokens, torch.float32)
    assert_near(case.computed(window=window, bias=bias), case.expected(window, bias), 5e-6)


@pytest.mark.parametrize("width", [32, 128])
def test_attention_reads_and_writes_separate_projections(width: int) -> None:
    case = Case(2, width, [100, 20], 128, torch.float32, joined=False)
    assert_near(case.computed(), case.expected(), 5e-6)


@pytest.mark.skipif(INTERPRETED, reason="numpy has no bf16")
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_attention_in_bf16_differs_from_the_formula_by_rounding_alone(width: int) -> None:
    case = Case(2, width, [256, 130, 50, 1, 9], 512, torch.bfloat16)
    for window, bias in ((None, True), (40, False)):
        assert_near(case.computed(window=window, bias=bias), case.expected(window, bias), 1e-2)


def test_attention_drops_the_same_weights_forward_and_backward() -> None:
    heads, width, tokens, dropout = 2, 64, 128, 0.3
    case = Case(heads, width, [64, 40, 20], tokens, torch.float32)
    # Each token's value is the unit vector of its position, so that the output is the weights themselves.
    shown = Case(heads, width, [64, 40, 20], tokens, torch.float32)
    start = case.sequences.start_T
    shown.qkv[:, 2] = F.one_hot((torch.arange(tokens, device=DEVICE) - start).long(), width).float()[:, None]
    whole, dropped, elsewhere = (
        shown.computed(rate, bias=True, offset=offset)["out"] for rate, offset in ((0.0, 5), (dropout, 5), (dropout, 6))
    )
    kept = dropped > 0
    assert abs(float(kept[whole > 0].double().mean()) - (1 - dropout)) < 0.02
    assert 0.3 < float((kept != (elsewhere > 0))[whole > 0].double().mean()) < 0.54
    torch.testing.assert_close(dropped, whole * kept / (1 - dropout), rtol=1e-4, atol=1e-7)

    factor = torch.zeros(heads, tokens, tokens, dtype=torch.float64, device=DEVICE)
    column = (start[:, None] + torch.arange(width, device=DEVICE)).clamp(max=tokens - 1).long()
    factor.scatter_add_(2, column.expand(heads, -1, -1), kept.transpose(0, 1).double() / (1 - dropout))
    assert_near(case.computed(dropout, bias=True), case.expected(bias=True, kept=factor), 5e-6)
    again = case.computed(dropout, bias=True)
    assert all(torch.equal(again[name], value) for name, value in case.computed(dropout, bias=True).items())
