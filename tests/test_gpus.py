"""GPUs are listed as CUDA lists them, whatever NVML leaves unanswered."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from accl.config import resolve
from accl.errors import DeviceError
from accl.launch import checks, gpus, preflight
from accl.launch.check import Level
from accl.launch.gpus import Gpu, visible
from accl.training.load import MachineLoad
from tui import load

A, B = "GPU-7c7bdfb5-6119-995f-3ca1-7240d25c895e", "GPU-7e23960b-a441-4df0-3139-34d0fc0ccdcb"
MIG = "MIG-8c7bdfb5-6119-995f-3ca1-7240d25c895e"
GB = 10**9
FIGURES = (
    *("nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUUID", "nvmlDeviceGetUtilizationRates"),
    *("nvmlDeviceGetPowerUsage", "nvmlDeviceGetNumGpuCores", "nvmlDeviceGetMaxClockInfo"),
    *("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetCudaComputeCapability"),
)


class Nvml:
    """A driver with two GPUs, the second of which is the faster, and one part of the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch.setattr
        for name, answer in {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: {"part": 0}[handle],
            "nvmlDeviceGetIndex": lambda handle: handle,
            "nvmlDeviceGetUUID": lambda handle: (A, B)[handle],
            "nvmlDeviceGetName": lambda handle: "Part" if handle == "part" else f"GPU {'AB'[handle]}",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(
                total=(5 if handle == "part" else 10 * (handle + 1)) * GB, used=1.0
            ),
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=50),
            "nvmlDeviceGetPowerUsage": lambda _: 250_000,
            "nvmlDeviceGetNumGpuCores": lambda handle: 100 * (handle + 1),
            "nvmlDeviceGetMaxClockInfo": lambda *_: 1000,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlSystemGetCudaDriverVersion": lambda: 13020,
            "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
        }.items():
            self.answer(name, answer)

    def answer(self, name: str, answer: Callable[..., Any]) -> None:
        self._set(pynvml, name, answer)

    def refuse(self, *names: str, code: int = pynvml.NVML_ERROR_NOT_SUPPORTED) -> None:
        def refuse(*_: Any) -> None:
            raise pynvml.NVMLError(code)

        for name in names:
            self.answer(name, refuse)

    @staticmethod
    def _by_uuid(uuid: str) -> Any:
        if uuid in (A, B, MIG):
            return {A: 0, B: 1, MIG: "part"}[uuid]
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return Nvml(monkeypatch)


# What CUDA itself made of each value, on a machine with the GPUs A and B and driver 580.
AS_CUDA_READS = {
    **dict.fromkeys(("", "-1", "none", "NoDevFiles", " ", "x", "-1,0", "5,0", ",0", "all", "void"), ""),
    "0": "A",
    "1": "B",
    "0,1": "AB",
    "1,0": "BA",
    "0,-1,1": "A",
    "0,5,1": "A",
    "0,x,1": "A",
    "0,,1": "A",
    "0,": "A",
    "0,0": "",
    "0,1,0": "",
    "1,1": "",
    "00,0": "",
    " 1 , 0 ": "BA",
    "1 ,0": "BA",
    "1\t,0": "BA",
    "\n1": "B",
    "0 1": "A",
    "0;1": "A",
    "1gpu,0b": "BA",
    "0x1": "A",
    "01": "B",
    "+1": "B",
    "1.5": "B",
    "4294967297": "B",
    "18446744073709551617": "",
    A: "A",
    B: "B",
    A[:6]: "A",
    B[:6]: "B",
    "GPU-": "",
    "GPU": "",
    "GPU-7": "",
    f"{A},{B}": "AB",
    f"{B},{A}": "BA",
    f"{A},{A}": "",
    f"{A[:6]},{A}": "",
    f"{B[:6]},{A[:6]}": "BA",
    f"{A},1": "A",
    f"{B},0": "B",
    f"1,{A}": "B",
    f"{A},zz,{B}": "A",
    f"zz,{A}": "",
    A[4:]: "",
    f"GPU-{A[4:].upper()}": "A",
    A.lower(): "",
    f" {A}": "",
    f"{A} ": "A",
    f"{A}, {B}": "A",
    f"{A} ,{B}": "AB",
    f"{A}x": "A",
    "MIG-": "",
    f"MIG-{A}": "",
}


@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize(("chosen", "shown"), AS_CUDA_READS.items())
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, chosen: str, shown: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert "".join(gpu.name[-1] for gpu in gpus.gpus()) == shown


def test_torch_counts_the_same_gpus() -> None:
    """Torch reads the variable by itself when it counts without a driver's help."""
    present = [Gpu(0, "A", GB, A), Gpu(1, "B", GB, B)]
    for length in range(1, 4):
        for entries in itertools.product(["0", "1", "2", "-1", "x", "", " 1", "1y"], repeat=length):
            chosen = ",".join(entries)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CUDA_VISIBLE_DEVICES", chosen)
                parsed = torch.cuda._parse_visible_devices()
            # CUDA ends the list at the first number that is too large, before it looks for doubles; torch after it.
            expected = list(itertools.takewhile(lambda number: number in (0, 1), parsed))
            if parsed:
                assert [gpu.index for gpu in visible(present, chosen)] == expected, chosen


@pytest.mark.usefixtures("nvml")
def test_all_are_visible_without_the_variable() -> None:
    assert gpus.gpus() == [Gpu(0, "GPU A", 10 * GB, A), Gpu(1, "GPU B", 20 * GB, B)]


def test_cuda_counts_from_the_fastest_on_unless_told_otherwise(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [gpu.name for gpu in gpus.gpus()] == ["GPU B"]
    nvml.refuse("nvmlDeviceGetNumGpuCores", "nvmlDeviceGetMaxClockInfo")
    assert [gpu.name for gpu in gpus.gpus()] == ["GPU A"]


def test_a_part_of_a_gpu_is_listed_by_itself(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{MIG},{MIG},0")
    assert gpus.gpus() == [Gpu(0, "Part", 5 * GB, MIG)]
    nvml.refuse("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
    assert gpus.gpus() == []


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_without_a_driver_there_are_no_gpus(nvml: Nvml, code: int) -> None:
    nvml.refuse("nvmlInit", code=code)
    assert gpus.gpus() == []
    assert gpus.absence() == "no NVIDIA GPU"


def test_a_driver_without_gpus_or_with_one_that_is_lost_is_no_error(nvml: Nvml) -> None:
    def lost(index: int) -> int:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    nvml.answer("nvmlDeviceGetHandleByIndex", lost)
    assert [gpu.name for gpu in gpus.gpus()] == ["GPU B"]
    nvml.refuse("nvmlDeviceGetCount", code=pynvml.NVML_ERROR_UNKNOWN)
    assert gpus.gpus() == []
    nvml.answer("nvmlDeviceGetCount", lambda: 0)
    assert gpus.gpus() == []


@pytest.mark.parametrize("missing", [[name] for name in FIGURES] + [list(FIGURES)])
def test_a_figure_that_is_not_supported_takes_no_other_with_it(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=A[4:]))
    monkeypatch.setattr(checks, "torch_cuda", lambda: "13.0")
    nvml.refuse(*missing)
    assert len(gpus.gpus()) == 2
    found = {check.name: check for check in checks.examine(["demo"], tmp_path, terminal=()).checks}
    assert found["GPU"].level is Level.OK
    used, memory, power, cpu, rss = MachineLoad().read()
    assert used == (None if "nvmlDeviceGetUtilizationRates" in missing else 50.0)
    assert memory == (None if "nvmlDeviceGetMemoryInfo" in missing else 1.0)
    assert power == (None if "nvmlDeviceGetPowerUsage" in missing else 250.0)
    assert cpu is not None
    assert rss


def test_a_gpu_that_is_lost_in_mid_run_leaves_the_figures_of_the_process(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=MIG[4:]))
    load = MachineLoad()
    assert load.read()[0] == 50.0
    nvml.refuse(*FIGURES, code=pynvml.NVML_ERROR_GPU_IS_LOST)
    assert load.read()[:3] == (None, None, None)
    assert load.read()[4]


def test_a_machine_without_proc_tells_nothing_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import psutil

    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert MachineLoad().read() == (None,) * 5
    found = {check.name: check for check in checks.examine(["demo"], tmp_path, terminal=()).checks}
    assert found["memory"].level is Level.WARN
    assert found["profile demo"].level is Level.OK


@pytest.mark.usefixtures("nvml")
def test_a_run_on_a_gpu_is_refused_where_torch_would_see_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("full", "demo", ["train.device=cuda"]).config
    monkeypatch.setattr(preflight, "torch_cuda", lambda: "13.0")
    preflight.check(config, lambda _: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES=none hides all 2"):
        preflight.check(config, lambda _: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(preflight, "torch_cuda", lambda: None)
    with pytest.raises(DeviceError, match="build for CPUs"):
        preflight.check(config, lambda _: None)


def test_the_head_of_the_list_tells_how_busy_the_gpus_are(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_gpus", gpus.gpus)
    assert load.machine_load()[:2] == ("GPU0 50% 250W 0/10GB", "GPU1 50% 250W 0/20GB")
    monkeypatch.setattr(load, "FEW", 1)
    assert load.machine_load()[0] == "2 GPUs 50 50% 500W 0/30GB"
    nvml.refuse("nvmlDeviceGetUtilizationRates")
    assert load.machine_load()[0] == "2 GPUs 500W 0/30GB"
