"""Places for the next run of the queue, of which GPU has room for it."""

from __future__ import annotations

import pytest

from accl.launch import places
from accl.launch.gpus import Gpu, GpuLoad
from accl.launch.places import Demand, Occupant, find_place

GIB = 2**30
A, B = Gpu(0, "H100", 80 * GIB, "GPU-a"), Gpu(1, "H100", 80 * GIB, "GPU-b")


def loads(a: float, b: float) -> list[GpuLoad]:
    return [GpuLoad(gpu, None, None, int(used * GIB)) for gpu, used in ((A, a), (B, b))]


@pytest.mark.parametrize(
    ("demand", "occupants", "used", "gpu"),
    [
        # A run of unknown size takes a GPU that is free.
        (Demand(True), [], (1, 1), "GPU-a"),
        (Demand(True), [], (5, 1), "GPU-b"),
        (Demand(True), [], (60, 1), "GPU-b"),
        (Demand(True), [], (60, 30), None),
        (Demand(True), [Occupant("GPU-a")], (1, 1), "GPU-b"),
        (Demand(True), [Occupant("GPU-a"), Occupant("GPU-b")], (1, 1), None),
        # One of known size takes what fits, beside a stranger too.
        (Demand(True, 20 * GIB), [], (60, 30), "GPU-b"),
        (Demand(True, 20 * GIB), [], (60, 60), None),
        (Demand(True, 20 * GIB), [], (59, 60), "GPU-a"),
        (Demand(True, 20 * GIB), [Occupant("GPU-a"), Occupant("GPU-b")], (20, 20), None),
        (Demand(True, 20 * GIB, per_gpu=2), [Occupant("GPU-a"), Occupant("GPU-b")], (30, 20), "GPU-b"),
        (Demand(True, 20 * GIB, per_gpu=2), [Occupant("GPU-b")], (30, 20), "GPU-a"),
        # Those that were just started have yet to take their memory.
        (
            Demand(True, 30 * GIB, per_gpu=2),
            [Occupant("GPU-a", 30 * GIB), Occupant("GPU-b", 40 * GIB)],
            (1, 1),
            "GPU-a",
        ),
        (Demand(True, 30 * GIB, per_gpu=2), [Occupant("GPU-a", 50 * GIB), Occupant("GPU-b", 50 * GIB)], (1, 1), None),
        (Demand(True, None, per_gpu=2), [Occupant("GPU-a", None), Occupant("GPU-b", None)], (1, 1), "GPU-a"),
        # --jobs counts everywhere, and runs on the processor take no GPU.
        (Demand(True, jobs=2), [Occupant(), Occupant()], (1, 1), None),
        (Demand(True, jobs=3), [Occupant(), Occupant()], (1, 1), "GPU-a"),
    ],
)
def test_a_run_gets_the_gpu_with_room_for_it(
    demand: Demand, occupants: list[Occupant], used: tuple[float, float], gpu: str | None
) -> None:
    place = find_place(demand, occupants, loads(*used))
    assert (place.gpu if place else None) == gpu
    assert place is None or place.variables["CUDA_VISIBLE_DEVICES"] == gpu


def test_a_driver_that_tells_nothing_gives_each_gpu_to_one_run() -> None:
    silent = [GpuLoad(Gpu(3, "GPU", None), None, None, None)]
    place = find_place(Demand(True, 20 * GIB), [], silent)
    assert place is not None
    assert place.variables == {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert find_place(Demand(True, 20 * GIB, per_gpu=2), [Occupant("3")], silent) is None


def test_side_by_side_runs_share_the_cores_unless_the_user_settles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "cores", lambda: 8)
    monkeypatch.delenv(places.THREADS)
    for jobs, variables in ((None, {}), (1, {}), (3, {places.THREADS: "2"}), (99, {places.THREADS: "1"})):
        place = find_place(Demand(False, jobs=jobs), [], [])
        assert place is not None
        assert place.variables == variables
