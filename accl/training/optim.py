"""AdamW with its parameter groups, the learning rate of every step, and the optimizer's part of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from accl.config import Optim

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, config: Optim, capturable: bool = False) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101) over all parameters of a model.

    Args:
        capturable: for CUDA graphs: all groups share one tensor on the device as their learning rate.
    """
    rate = torch.tensor(config.lr, device=next(model.parameters()).device) if capturable else config.lr
    return torch.optim.AdamW(parameter_groups(model, config), lr=rate, fused=True, capturable=capturable)


def parameter_groups(model: nn.Module, config: Optim) -> list[dict[str, Any]]:
    """Return the groups of an optimizer: parameters with weight decay, and those without."""
    parameters = decayed(model)
    return [
        {"params": [p for p, decays in parameters if decays], "weight_decay": config.weight_decay},
        {"params": [p for p, decays in parameters if not decays], "weight_decay": 0.0},
    ]


def decayed(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """List every parameter and whether it decays: matrices do; biases, norms and embeddings do not."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    return [(parameter, parameter.ndim >= 2 and id(parameter) not in embeddings) for parameter in model.parameters()]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(config: Optim, step: int, total_steps: int) -> float:
    """Return the rate of step 1..total_steps: linear warm-up over ``warmup_ratio`` of them, then the schedule to 0."""
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
    """Return the number of steps over which the learning rate rises linearly from 0."""
    return round(config.warmup_ratio * total_steps)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return AdamW's step and moments as ``exp_avg.<parameter>`` and so on, for a checkpoint."""
    return {
        f"{key}.{name}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put the result of `optimizer_state` back, in place where the optimizer has memory for it already."""
    for name, parameter in model.named_parameters():
        values = {key: state[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in state}
        if parameter in optimizer.state:
            for key, value in values.items():
                optimizer.state[parameter][key].copy_(value)
        elif values:
            # AdamW's step counter stays where the fused kernel keeps it: beside its parameter.
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in values.items()}
