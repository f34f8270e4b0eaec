"""Figures leave the device in the background, arrive in order, and are those of the moment they were sent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accl.training.outbox import Outbox


def test_on_the_host_itself_figures_are_acted_on_at_once() -> None:
    outbox, seen = Outbox(torch.device("cpu")), list[float]()
    figures = torch.tensor([1.0])
    outbox.send(figures, lambda here: seen.append(float(here)))
    figures += 1
    outbox.send(figures, lambda here: seen.append(float(here)))
    assert seen == [1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
def test_a_busy_gpu_holds_up_nobody_and_what_it_computes_later_changes_no_figure() -> None:
    outbox, seen = Outbox(torch.device("cuda")), list[Tensor]()
    figures = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # a second or so
    for _ in range(3):
        figures += 1
        outbox.send(figures, seen.append)
    figures += 1
    outbox.deliver()
    assert seen == []
    outbox.drain()
    assert [float(here.min()) for here in seen] == [1, 2, 3]
    assert [float(here.max()) for here in seen] == [1, 2, 3]
    assert not any(here.is_cuda for here in seen)
    outbox.drain()
    assert len(seen) == 3
