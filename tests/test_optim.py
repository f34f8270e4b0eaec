"""One optimizer over flat memory, held against torch's AdamW and clipping."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from accl.config import Optim, resolve
from accl.data.cache import cache_folder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import ThreadPool
from accl.training.backends.flat_adamw import FlatCpuAdamW
from accl.training.optim import make_optimizer

RATES = [1e-2, 2e-2, 5e-3, 1e-2]


class Net(nn.Module):
    """Matrices, a vector of odd size, an embedding, and a layer that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 7)
        self.first, self.second, self.idle = nn.Linear(7, 3), nn.Linear(3, 1), nn.Linear(2, 2)

    def loss(self, seed: int) -> Tensor:
        ids_N = torch.randint(5, (6,), generator=torch.Generator().manual_seed(seed))
        result: Tensor = self.second(torch.tanh(self.first(self.table(ids_N)))).square().sum()
        return result


def settings(**changed: float) -> Optim:
    return resolve("full", "demo", [f"optim.{key}={value}" for key, value in changed.items()]).config.optim


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def flat(model: Net, config: Optim | None = None, threads: int = 2) -> FlatCpuAdamW:
    kernels = load(cache_folder())
    return FlatCpuAdamW(model, config or settings(), kernels, ThreadPool(threads, kernels))


def flat_steps(model: Net, optimizer: FlatCpuAdamW, steps: range) -> list[float]:
    norms = []
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        model.loss(step).backward()  # type: ignore[no-untyped-call]
        norms.append(float(optimizer.update()))
    return norms


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("max_norm", [0.05, 1000.0])
def test_flat_parameters_take_the_steps_of_clipping_and_adamw(max_norm: float, threads: int) -> None:
    config = settings(weight_decay=0.1, max_grad_norm=max_norm)
    reference, model = net(), net()
    theirs, ours = make_optimizer(reference, config), flat(model, config, threads)
    expected = []
    for step, rate in enumerate(RATES):
        for group in theirs.param_groups:
            group["lr"] = rate
        reference.loss(step).backward()  # type: ignore[no-untyped-call]
        expected.append(float(nn.utils.clip_grad_norm_(reference.parameters(), max_norm)))
        theirs.step()
        theirs.zero_grad(set_to_none=True)
    assert flat_steps(model, ours, range(len(RATES))) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(dict(model.named_parameters()), dict(reference.named_parameters()))
    for name, parameter in model.named_parameters():
        assert parameter.grad is None if name.startswith("idle") else not parameter.grad.any(), name
    for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert ours.state[mine].keys() == theirs.state[other].keys()
        for name, value in ours.state[mine].items():
            torch.testing.assert_close(value, theirs.state[other][name])


def test_what_no_loss_reaches_does_not_decay_either() -> None:
    model = net()
    before = model.idle.weight.clone()
    flat_steps(model, flat(model, settings(weight_decay=0.1)), range(2))
    assert torch.equal(model.idle.weight, before)


def test_a_parameter_that_is_learnt_later_is_refused() -> None:
    model = net()
    optimizer = flat(model)
    flat_steps(model, optimizer, range(1))
    model.idle.weight.grad = torch.ones_like(model.idle.weight)
    with pytest.raises(AssertionError, match="from the first step on or never"):
        flat_steps(model, optimizer, range(1, 2))


def test_gradients_that_were_put_elsewhere_are_refused() -> None:
    model = net()
    optimizer = flat(model)
    flat_steps(model, optimizer, range(1))
    model.zero_grad(set_to_none=True)
    with pytest.raises(AssertionError, match="where the first step put them"):
        flat_steps(model, optimizer, range(1, 2))


def test_with_weights_and_moments_put_back_it_goes_on_to_the_bit() -> None:
    whole, model = net(), net()
    flat_steps(whole, flat(whole), range(4))
    before = flat(model)
    flat_steps(model, before, range(2))
    again = net()
    again.load_state_dict(model.state_dict())
    after = flat(again)
    for own, held in zip(again.parameters(), model.parameters(), strict=True):
        if held in before.state:
            after.state[own] = {name: value.clone() for name, value in before.state[held].items()}
    flat_steps(again, after, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    addresses = [parameter.data_ptr() % 64 for parameter in again.parameters()]
    assert addresses == [0] * len(addresses)
