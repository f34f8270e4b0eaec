"""AdamW with its groups, and the learning rate of every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from accl.config import Optim
from accl.kernels.triton.vocabulary import CompactEmbedding


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
    return torch.optim.AdamW(groups(model, config), lr=rate, fused=True, capturable=capturable)


def groups(model: nn.Module, config: Optim) -> list[dict[str, Any]]:
    """Of parameters that decay and of those that do not, as an optimizer takes them."""
    known = decays(model)
    return [
        {"params": [parameter for parameter, decay in known if decay], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter, decay in known if not decay], "weight_decay": 0.0},
    ]


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
