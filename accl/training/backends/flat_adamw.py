"""AdamW for the CPU, over parameters that lie end to end."""

from __future__ import annotations

import ctypes
from itertools import accumulate
from operator import attrgetter, is_

import torch
from torch import Tensor, nn

from accl.config import Optim
from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.thread_pool import ThreadPool
from accl.training.optim import parameter_groups

# Each parameter begins at a multiple of so many elements: 64 bytes, as in memory of its own. The last bits of a matrix
# product may depend on that, and those of a resumed run must be the same.
ALIGNMENT = 16


class Group(ctypes.Structure):
    """``Group`` of c/update.c."""

    _fields_ = [
        ("end", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("lr", "beta1", "beta2", "eps", "weight_decay")),
    ]


class FlatCpuAdamW(torch.optim.Optimizer):
    """The steps of `accl.training.optim.make_optimizer`, with clipping, in two passes over all parameters at once;
    torch makes a few passes over each of them.

    The first step moves parameters and their gradients into shared memory, of which they become views; gradients stay
    there, 0 after each step. A parameter that has no gradient at the first step is never updated. The moments of each
    parameter are in ``state`` under AdamW's names.

    Args:
        kernels: from `accl.kernels.cpu.native.load`. threads: each updates a share of the parameters.
    """

    def __init__(self, model: nn.Module, config: Optim, kernels: ctypes.CDLL, threads: ThreadPool) -> None:
        super().__init__(parameter_groups(model, config), {"lr": config.lr, "betas": (0.9, 0.999), "eps": 1e-8})
        self._max_norm = config.max_grad_norm
        self._kernels, self._threads = kernels, threads
        self._flats = [torch.empty(0)] * 4  # values, gradients, first and second moments
        self._steps = torch.zeros(())
        self._learnt: list[nn.Parameter] = []
        self._gradients: list[Tensor] = []  # their views of the flat gradients
        self._idle: list[nn.Parameter] = []
        self._ends: list[int] = []  # of each parameter group in the flat memory

    def update(self) -> Tensor:
        """Take a step, and return the norm of the gradients before clipping, 1.

        Named `update`, not `step`: torch wraps `step` with hooks and expects a loss from it.
        """
        if not self._ends:
            self._flatten()
        grad = attrgetter("grad")
        assert all(p.grad is None for p in self._idle), "a parameter is learnt from the first step on or never"
        in_place = all(map(is_, map(grad, self._learnt), self._gradients))
        assert in_place, "gradients are to stay where the first step put them"
        groups = (Group * len(self._ends))()
        for group, end, settings in zip(groups, self._ends, self.param_groups, strict=True):
            group.end, group.lr, group.weight_decay = end, settings["lr"], settings["weight_decay"]
            (group.beta1, group.beta2), group.eps = settings["betas"], settings["eps"]
        norm, flats = torch.empty(1), map(pointer, self._flats)
        rest = (len(groups), self._max_norm, pointer(self._steps), pointer(norm))
        self._kernels.adamw(self._threads.handle, *flats, ctypes.byref(groups), *rest)
        return norm

    def _flatten(self) -> None:
        learnt = [[p for p in settings["params"] if p.grad is not None] for settings in self.param_groups]
        self._idle = [p for settings in self.param_groups for p in settings["params"] if p.grad is None]
        self._ends = list(accumulate(sum(map(_aligned, parameters)) for parameters in learnt))
        self._flats = [torch.zeros(self._ends[-1]) for _ in range(4)]
        everything = [p for parameters in learnt for p in parameters]
        for p, begin in zip(everything, accumulate(map(_aligned, everything), initial=0), strict=False):
            value, gradient, exp_avg, exp_avg_sq = (flat[begin : begin + p.numel()].view_as(p) for flat in self._flats)
            p.data = value.copy_(p.detach())
            p.grad = gradient.copy_(p.grad)
            self._learnt.append(p)
            self._gradients.append(p.grad)
            own = {"step": self._steps, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
            for name, loaded in self.state[p].items():  # from a checkpoint
                own[name].copy_(loaded)
            self.state[p] = own


def _aligned(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
