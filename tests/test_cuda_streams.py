"""Which of torch's 32 CUDA streams threads and captures of a process get, and what they do on the common one."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext, suppress
from functools import partial
from itertools import cycle
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from accl.kernels.triton import streams
from accl.training import device
from accl.training.backends.capture import LEFT_FREE, GraphRecorder
from accl.training.device import evaluating
from accl.training.interrupt import StoppedEarly

DEVICE = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = cycle(range(32))
    make = partial(SimpleNamespace, name="one of the pool", wait_stream=lambda _other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: make(cuda_stream=next(pool)))
    monkeypatch.setattr(streams, "_own", [])
    monkeypatch.setattr(streams, "_side", deque())
    monkeypatch.setattr(streams, "_common", [])


def side_streams(count: int) -> list[int]:
    return [streams.SideStream(DEVICE)._stream.cuda_stream for _ in range(count)]


def recorded(name: str, order: list[str]) -> Any:
    """A stream that notes what it waits for."""
    note = order.append
    return SimpleNamespace(wait_stream=lambda other: note(f"{name} waits for {other.name}"), name=name, device=DEVICE)


def test_no_thread_launches_on_a_stream_of_another_or_of_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    own, side, common = [], [], []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: recorded("steps", []))
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    for _ in range(23):  # runs of one process
        own.append(streams.own_stream(DEVICE).cuda_stream)
        side += side_streams(3)
        with streams.on_common_stream(DEVICE) as stream:
            common.append(stream.cuda_stream)
    assert len({*own}) == 23
    assert len({*side}) == streams.NUM_SIDE_STREAMS
    assert len({*common}) == 1
    assert len({*own, *side, *common}) == streams.POOL
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
    graph = SimpleNamespace(capture_begin=lambda **_: order.append("begin"), capture_end=lambda: order.append("end"))
    steps = recorded("steps", order)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: steps)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    recorder = GraphRecorder.__new__(GraphRecorder)
    recorder.stream, recorder._memory = recorded("captures", order), None  # type: ignore[assignment]
    monkeypatch.setattr(recorder, "_drawing", nullcontext)
    with recorder.capturing():
        order.append("body")
    assert order == ["captures waits for steps", "begin", "body", "end", "steps waits for captures"]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What streams wait for: the common one, and that of steps, which is the current one outside of the common one."""
    order: list[str] = []
    common, steps = recorded("common", order), recorded("steps", order)
    common.synchronize = lambda: order.append("end")
    monkeypatch.setattr(streams, "_common", [common])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: steps)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(order.append(f"on {stream.name}")))
    return order


@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluation_stands_between_the_steps_before_and_behind_it(order: list[str], fails: bool) -> None:
    with suppress(StoppedEarly), evaluating(DEVICE, lambda: None):
        order.append("evaluate")
        if fails:
            raise StoppedEarly
    assert order == ["common waits for steps", "on common", "evaluate", "steps waits for common"]
    assert not device._EVALUATIONS.locked()


def test_a_rehearsal_takes_place_on_the_common_stream_and_has_ended_before_memory_is_given_back(
    order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = GraphRecorder.__new__(GraphRecorder)
    recorder.stream = recorded("captures", order)
    monkeypatch.setattr(recorder, "_drawing", nullcontext)
    monkeypatch.setattr(recorder, "_release_memory", lambda: order.append("give back"))
    with recorder.rehearsing():
        order.append("rehearse")
    waits = "common waits for steps", "steps waits for common"
    assert order == [waits[0], "on common", "rehearse", waits[1], "end", "give back"]


@pytest.mark.usefixtures("order")
def test_one_run_evaluates_at_a_time_and_one_that_waits_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "LOOK_S", 0.01)
    looked, ended = Event(), Event()
    inside: list[str] = []

    def evaluate() -> None:
        with evaluating(DEVICE, looked.set):
            inside.append("second")
            ended.set()

    def stop() -> None:
        raise StoppedEarly

    with evaluating(DEVICE, lambda: None):
        second = Thread(target=evaluate)
        second.start()
        assert looked.wait(60)
        with pytest.raises(StoppedEarly), evaluating(DEVICE, stop):
            inside.append("stopped")
        with evaluating(torch.device("cpu"), stop):
            inside.append("on the processor")
        assert not ended.is_set()
    assert ended.wait(60)
    second.join()
    assert inside == ["on the processor", "second"]
