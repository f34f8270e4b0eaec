"""Copies leave the device in the background, arrive in order, and hold the values of the moment they were made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accl.training.device_queue import DeviceToHostQueue


def test_on_the_cpu_values_arrive_at_once() -> None:
    queue, arrived = DeviceToHostQueue(torch.device("cpu")), list[float]()
    values = torch.tensor([1.0])
    queue.enqueue(values, lambda host: arrived.append(float(host)))
    values += 1
    queue.enqueue(values, lambda host: arrived.append(float(host)))
    assert arrived == [1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_nothing_waits_for_a_busy_gpu_and_later_kernels_change_no_value() -> None:
    queue, arrived = DeviceToHostQueue(torch.device("cuda")), list[Tensor]()
    values = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # a second or so
    for _ in range(3):
        values += 1
        queue.enqueue(values, arrived.append)
    values += 1
    queue.poll()
    assert arrived == []
    queue.flush()
    assert [float(host.min()) for host in arrived] == [1, 2, 3]
    assert [float(host.max()) for host in arrived] == [1, 2, 3]
    assert not any(host.is_cuda for host in arrived)
    queue.flush()
    assert len(arrived) == 3
