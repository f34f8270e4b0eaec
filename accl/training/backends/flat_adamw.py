"""AdamW for the CPU, over parameters that lie end to end."""

from __future__ import annotations

import ctypes
from itertools import accumulate
from operator import attrgetter, is_

import torch
from torch import Tensor, nn

from accl.config import Optim
from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.team import Team
from accl.training.optim import parameter_groups

# Elements that a parameter begins at a multiple of: 64 bytes, as memory of its own does. The last bits of a matrix
# product may depend on that, and those of a resumed run are to be the same.
ALIGNMENT = 16


class Group(ctypes.Structure):
    """As in c/update.c."""

    _fields_ = [
        ("end", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("rate", "keep1", "keep2", "eps", "decay")),
    ]


class JoinedAdamW(torch.optim.Optimizer):
    """What `accl.training.optim.make_optimizer` makes, with clipping, in two passes over all parameters at once, where
    torch takes a few for each of them.

    Parameters and their gradients become views of shared memory at the first step; gradients stay there, 0 after each
    step. A parameter that has none at the first step is never learnt and stays as it is. The moments of each parameter
    are in ``state`` under AdamW's names.

    Args:
        kernels: from `accl.kernels.cpu.native.load`.
        team: the parameters are shared out to its threads.
    """

    def __init__(self, model: nn.Module, config: Optim, kernels: ctypes.CDLL, team: Team) -> None:
        super().__init__(parameter_groups(model, config), {"lr": config.lr, "betas": (0.9, 0.999), "eps": 1e-8})
        self._max_norm = config.max_grad_norm
        self._kernels, self._team = kernels, team
        self._flats = [torch.empty(0)] * 4  # values, gradients, first and second moments
        self._count = torch.zeros(())
        self._learnt: list[nn.Parameter] = []
        self._places: list[Tensor] = []  # among the gradients
        self._idle: list[nn.Parameter] = []
        self._ends: list[int] = []  # of each group, in these

    def update(self) -> Tensor:
        """A step by the gradients; returns their norm before clipping, 1. Not `step`, which returns a loss, and around
        which torch puts hooks."""
        if not self._ends:
            self._join()
        grad = attrgetter("grad")
        assert all(p.grad is None for p in self._idle), "a parameter is learnt from the first step on or never"
        kept = all(map(is_, map(grad, self._learnt), self._places))
        assert kept, "gradients are to stay where the first step put them"
        groups = (Group * len(self._ends))()
        for group, end, settings in zip(groups, self._ends, self.param_groups, strict=True):
            group.end, group.rate, group.decay = end, settings["lr"], settings["weight_decay"]
            (group.keep1, group.keep2), group.eps = settings["betas"], settings["eps"]
        norm, flats = torch.empty(1), map(pointer, self._flats)
        counted = (len(groups), self._max_norm, pointer(self._count), pointer(norm))
        self._kernels.adamw(self._team.handle, *flats, ctypes.byref(groups), *counted)
        return norm

    def _join(self) -> None:
        learnt = [[p for p in settings["params"] if p.grad is not None] for settings in self.param_groups]
        self._idle = [p for settings in self.param_groups for p in settings["params"] if p.grad is None]
        self._ends = list(accumulate(sum(map(_aligned, parameters)) for parameters in learnt))
        self._flats = [torch.zeros(self._ends[-1]) for _ in range(4)]
        everything = [p for parameters in learnt for p in parameters]
        for p, begin in zip(everything, accumulate(map(_aligned, everything), initial=0), strict=False):
            value, gradient, first, second = (flat[begin : begin + p.numel()].view_as(p) for flat in self._flats)
            p.data = value.copy_(p.detach())
            p.grad = gradient.copy_(p.grad)
            self._learnt.append(p)
            self._places.append(p.grad)
            own = {"step": self._count, "exp_avg": first, "exp_avg_sq": second}
            for name, held in self.state[p].items():  # put there from a checkpoint
                own[name].copy_(held)
            self.state[p] = own


def _aligned(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
