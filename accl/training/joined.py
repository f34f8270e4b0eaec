"""AdamW for the CPU, over parameters that lie end to end."""

from __future__ import annotations

import ctypes
import math
from itertools import accumulate

import torch
from torch import Tensor, nn

from accl.config import Optim
from accl.fast.native import pointer
from accl.fast.team import Team
from accl.training.optim import groups

# Elements that a parameter begins at a multiple of: 64 bytes, as memory of its own does. The last bits of a matrix
# product may depend on that, and those of a resumed run are to be the same.
ALIGNMENT = 16


class JoinedAdamW(torch.optim.Optimizer):
    """What `accl.training.optim.make_optimizer` makes, with clipping, in two passes over all parameters at once, where
    torch takes a few for each of them.

    Parameters and their gradients become views of shared memory at the first step; gradients stay there, 0 after each
    step. A parameter that has none at the first step is never learnt and stays as it is. The moments of each parameter
    are in ``state`` under AdamW's names.

    Args:
        kernels: from `accl.fast.native.load`.
        team: the parameters are shared out to its threads.
    """

    def __init__(self, model: nn.Module, config: Optim, kernels: ctypes.CDLL, team: Team) -> None:
        super().__init__(groups(model, config), {"lr": config.lr, "betas": (0.9, 0.999), "eps": 1e-8})
        self._max_norm = config.max_grad_norm
        self._kernels, self._team = kernels, team
        self._flats = [torch.empty(0)] * 4  # values, gradients, first and second moments
        self._count = torch.zeros(())
        self._learnt: list[tuple[nn.Parameter, Tensor]] = []  # each with its place among the gradients
        self._idle: list[nn.Parameter] = []
        # For each thread, of which group it updates what.
        self._shares: list[list[tuple[int, int, int]]] = []

    def update(self) -> Tensor:
        """A step by the gradients; returns their norm before clipping. Not `step`, which returns a loss, and around
        which torch puts hooks."""
        if not self._shares:
            self._join()
        assert all(p.grad is None for p in self._idle), "a parameter is learnt from the first step on or never"
        assert all(p.grad is place for p, place in self._learnt), "gradients are to stay where the first step put them"
        norm = math.sqrt(sum(self._team.share_out(self._square_sum, self._shares)))
        # As `torch.nn.utils.clip_grad_norm_`.
        scale = min(1.0, self._max_norm / (norm + 1e-6))
        self._count += 1
        count = int(self._count)
        self._team.share_out(lambda share: self._update(share, scale, count), self._shares)
        return torch.tensor(norm)

    def _square_sum(self, share: list[tuple[int, int, int]]) -> float:
        begin, end = share[0][1], share[-1][2]
        found: float = self._kernels.square_sum(self._at(1, begin), end - begin)
        return found

    def _update(self, share: list[tuple[int, int, int]], scale: float, count: int) -> None:
        for group, begin, end in share:
            settings = self.param_groups[group]
            keep1, keep2 = settings["betas"]
            self._kernels.adamw(
                *(self._at(flat, begin) for flat in range(4)),
                end - begin,
                scale,
                settings["lr"],
                keep1,
                keep2,
                1 - keep1**count,
                1 - keep2**count,
                settings["eps"],
                settings["weight_decay"],
            )

    def _at(self, flat: int, element: int) -> int:
        return pointer(self._flats[flat]) + 4 * element

    def _join(self) -> None:
        learnt = [[p for p in settings["params"] if p.grad is not None] for settings in self.param_groups]
        self._idle = [p for settings in self.param_groups for p in settings["params"] if p.grad is None]
        ends = list(accumulate(sum(map(_aligned, parameters)) for parameters in learnt))
        self._flats = [torch.zeros(ends[-1]) for _ in range(4)]
        everything = [p for parameters in learnt for p in parameters]
        for p, begin in zip(everything, accumulate(map(_aligned, everything), initial=0), strict=False):
            value, gradient, first, second = (flat[begin : begin + p.numel()].view_as(p) for flat in self._flats)
            p.data = value.copy_(p.detach())
            p.grad = gradient.copy_(p.grad)
            self._learnt.append((p, p.grad))
            own = {"step": self._count, "exp_avg": first, "exp_avg_sq": second}
            for name, held in self.state[p].items():  # put there from a checkpoint
                own[name].copy_(held)
            self.state[p] = own
        groups_of = list(zip(range(len(ends)), [0, *ends], ends, strict=False))
        for begin, end in self._team.ranges(ends[-1], ALIGNMENT):
            parts = [(group, max(begin, first), min(end, last)) for group, first, last in groups_of]
            self._shares.append([part for part in parts if part[1] < part[2]])


def _aligned(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
