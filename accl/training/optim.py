"""AdamW with its groups, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from accl.config import Optim


def make_optimizer(model: nn.Module, config: Optim) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, 2019). Weight decay on matrices only: not on biases, norms and embeddings."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


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
