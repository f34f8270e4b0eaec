"""AdamW with its groups, and the learning rate of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from accl.config import Optim
from accl.fast.vocabulary import CompactEmbedding


def decays(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Every parameter, and whether it decays: matrices do; biases, norms and embeddings do not."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, CompactEmbedding))
        for parameter in module.parameters(recurse=False)
    }
    return [(parameter, parameter.ndim >= 2 and id(parameter) not in embeddings) for parameter in model.parameters()]


def make_optimizer(model: nn.Module, config: Optim, capturable: bool = False) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019).

    Args:
        capturable: for CUDA graphs: the learning rate of all groups is one tensor on the device.
    """
    rate = torch.tensor(config.lr, device=next(model.parameters()).device) if capturable else config.lr
    return torch.optim.AdamW(_groups(model, config), lr=rate, fused=True, capturable=capturable)


def _groups(model: nn.Module, config: Optim) -> list[dict[str, Any]]:
    known = decays(model)
    return [
        {"params": [parameter for parameter, decay in known if decay], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter, decay in known if not decay], "weight_decay": 0.0},
    ]


# Elements that a parameter begins at a multiple of: 64 bytes, as memory of its own does. The last bits of a matrix
# product may depend on that, and those of a resumed run are to be the same.
ALIGNMENT = 16


@dataclass(frozen=True)
class _Joined:
    """Parameters of a group, and end to end their values, gradients and moments; ``count``: of their updates."""

    parameters: list[nn.Parameter]
    values: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor
    count: Tensor

    def views(self, flat: Tensor) -> list[Tensor]:
        """The place of each parameter in one of the four, in its shape."""
        begin = accumulate((_aligned(p) for p in self.parameters), initial=0)
        return [flat[at : at + p.numel()].view_as(p) for at, p in zip(begin, self.parameters, strict=False)]


class JoinedAdamW(torch.optim.Optimizer):
    """What `make_optimizer` makes, with clipping, for the CPU: a few operations on parameters that lie end to end,
    where AdamW and clipping take a few for each.

    Parameters become views of shared memory at the first step. One that has no gradient then is never learnt and stays
    as it is. The moments of each parameter are in ``state`` under AdamW's names.
    """

    def __init__(self, model: nn.Module, config: Optim) -> None:
        super().__init__(_groups(model, config), {"lr": config.lr, "betas": (0.9, 0.999), "eps": 1e-8})
        self._max_norm = config.max_grad_norm
        self._joined: list[_Joined] = []
        self._gradients = torch.empty(0)
        self._places: list[Tensor] = []

    def step(self, closure: None = None) -> Tensor:  # type: ignore[override]  # a norm, where a closure has a loss
        """One update by the gradients, which are dropped; returns their norm before clipping."""
        if not self._joined:
            self._join()
        found = [p.grad for settings in self.param_groups for p in settings["params"] if p.grad is not None]
        assert len(found) == len(self._places), "a parameter is learnt from the first step on or never"
        torch._foreach_copy_(self._places, found)
        self.zero_grad(set_to_none=True)
        norm: Tensor = torch.linalg.vector_norm(self._gradients)
        # What the kernel divides gradients by; 1e-6 as in `torch.nn.utils.clip_grad_norm_`.
        divisor = ((norm + 1e-6) / self._max_norm).clamp_(min=1)
        for joined, settings in zip(self._joined, self.param_groups, strict=True):
            adamw(
                [joined.values],
                [joined.gradients],
                [joined.first],
                [joined.second],
                [],
                [joined.count],
                fused=True,
                grad_scale=divisor,
                amsgrad=False,
                beta1=settings["betas"][0],
                beta2=settings["betas"][1],
                lr=settings["lr"],
                weight_decay=settings["weight_decay"],
                eps=settings["eps"],
                maximize=False,
            )
        return norm

    def _join(self) -> None:
        learnt = [[p for p in settings["params"] if p.grad is not None] for settings in self.param_groups]
        sizes = [sum(map(_aligned, parameters)) for parameters in learnt]
        self._gradients = torch.zeros(sum(sizes))
        for parameters, gradients in zip(learnt, torch.split(self._gradients, sizes), strict=True):
            values, first, second = (torch.zeros_like(gradients) for _ in range(3))
            joined = _Joined(parameters, values, gradients, first, second, torch.zeros(()))
            self._joined.append(joined)
            self._places += joined.views(gradients)
            for p, value, *moments in zip(parameters, *map(joined.views, (values, first, second)), strict=True):
                p.data = value.copy_(p.detach())
                own = {"step": joined.count, **dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))}
                for name, held in self.state[p].items():  # put there from a checkpoint
                    own[name].copy_(held)
                self.state[p] = own


def _aligned(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT


def learning_rate(config: Optim, step: int, total_steps: int) -> float:
    """The rate of step 1..total_steps: linear warm-up over ``warmup_ratio`` of them, then the schedule to 0."""
    warmup = warmup_steps(config, total_steps)
    if step <= warmup:
        return config.lr * step / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / max(1, total_steps - warmup + 1)
    if config.schedule == "linear":
        return config.lr * (1 - done)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def warmup_steps(config: Optim, total_steps: int) -> int:
    """Steps over which the learning rate rises linearly from 0."""
    return round(config.warmup_ratio * total_steps)
