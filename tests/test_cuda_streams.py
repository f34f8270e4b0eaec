"""Which of torch's 32 CUDA streams threads and captures of a process get."""

from __future__ import annotations

from collections import deque
from itertools import cycle
from types import SimpleNamespace

import pytest
import torch

from accl.kernels.triton import streams

DEVICE = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = cycle(range(32))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: SimpleNamespace(cuda_stream=next(pool)))
    monkeypatch.setattr(streams, "_own", [])
    monkeypatch.setattr(streams, "_side", deque())


def side_streams(count: int) -> list[int]:
    return [streams.SideStream(DEVICE)._stream.cuda_stream for _ in range(count)]


def test_no_thread_launches_on_a_stream_of_another_or_of_captures() -> None:
    own, side = [], []
    for _ in range(24):  # runs of one process
        own.append(streams.own_stream(DEVICE).cuda_stream)
        side += side_streams(3)
    assert len({*own}) == 24
    assert len({*side}) == streams.NUM_SIDE_STREAMS
    assert not {*own} & {*side}
    with pytest.raises(RuntimeError, match="no CUDA stream is left"):
        streams.own_stream(DEVICE)


def test_streams_of_one_backend_differ() -> None:
    used = side_streams(40)
    assert all(len({*used[i : i + 4]}) == 4 for i in range(0, 40, 4))
