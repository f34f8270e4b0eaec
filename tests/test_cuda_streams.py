"""Which of torch's 32 CUDA streams threads and captures of a process get."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from itertools import cycle
from types import SimpleNamespace

import pytest
import torch

from accl.kernels.triton import streams
from accl.training.backends.capture import LEFT_FREE, GraphRecorder

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


def test_only_a_thread_with_a_stream_of_its_own_shares_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current = SimpleNamespace(cuda_stream=100)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    assert not streams.on_own_stream()
    current = streams.own_stream(DEVICE)
    assert streams.on_own_stream()


@pytest.mark.parametrize(("is_shared", "free", "emptied"), [(False, 99, 1), (True, 30, 0), (True, 100 * LEFT_FREE, 1)])
def test_runs_of_one_process_keep_memory_until_it_is_scarce(
    monkeypatch: pytest.MonkeyPatch, is_shared: bool, free: float, emptied: int
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 100))
    recorder = GraphRecorder.__new__(GraphRecorder)
    recorder.stream, recorder._is_shared = SimpleNamespace(device=DEVICE), is_shared  # type: ignore[assignment]
    recorder._release_memory()
    assert len(calls) == emptied


def test_a_capture_resets_the_seed_after_the_steps_before_it_and_before_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def stream(name: str) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda other: order.append(f"{name} waits for {other.name}"), name=name)

    graph = SimpleNamespace(capture_begin=lambda **_: order.append("begin"), capture_end=lambda: order.append("end"))
    steps = stream("steps")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: steps)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    recorder = GraphRecorder.__new__(GraphRecorder)
    recorder.stream, recorder._memory = stream("captures"), None  # type: ignore[assignment]
    monkeypatch.setattr(recorder, "_drawing", nullcontext)
    with recorder.capturing():
        order.append("body")
    assert order == ["captures waits for steps", "begin", "body", "end", "steps waits for captures"]
