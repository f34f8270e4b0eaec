"""All trained parameters in one row of memory, so that what touches many of them is one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from accl.kernels.triton.adamw import Rule, adamw, square_sums

# Elements that a parameter begins at a multiple of: matrix products want aligned operands.
ALIGNMENT = 64
# The numbers of a step that never was; see `accl.kernels.triton.adamw.Rule`.
NOTHING = (0.0, 0.0, 0.0, 0.0)


class FlatParameters:
    """Moves parameters into one fp32 tensor, in the order given, and their gradients into another.

    The parameters stay where they are in their modules: each becomes a view, and so does its ``grad``.

    Args:
        sections: parameters by section; sections lie one after the other.
    """

    def __init__(self, sections: Sequence[Iterable[nn.Parameter]]) -> None:
        self._offsets: dict[nn.Parameter, int] = {}
        self.bounds = [0]
        """Where each section begins, and the last one ends."""
        n = 0
        for section in sections:
            for parameter in section:
                self._offsets[parameter] = n
                n += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
            self.bounds.append(n)
        device = next(iter(self._offsets)).device
        self.values = torch.zeros(n, device=device)
        self.gradients = torch.zeros(n, device=device)
        for parameter in self._offsets:
            view = self.view(self.values, parameter)
            view.copy_(parameter.data)
            parameter.data = view
            parameter.grad = self.view(self.gradients, parameter)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self._offsets)

    def section(self, flat: Tensor, number: int) -> Tensor:
        """The part of a flat tensor that belongs to a section."""
        return flat[self.bounds[number] : self.bounds[number + 1]]

    def view(self, flat: Tensor, parameter: nn.Parameter) -> Tensor:
        """The part of a flat tensor that belongs to a parameter, in its shape."""
        first = self._offsets[parameter]
        return flat[first : first + parameter.numel()].view(parameter.shape)

    def span(self, flat: Tensor, parameters: Sequence[nn.Parameter], before: int = 0) -> Tensor:
        """The part that belongs to parameters which lie end to end, their first dimensions joined.

        Args:
            before: elements of the whole that ``flat`` leaves out at its beginning.
        """
        first = self._offsets[parameters[0]] - before
        end = first
        for parameter in parameters:
            assert self._offsets[parameter] - before == end, "parameters do not lie end to end"
            end += parameter.numel()
        return flat[first:end].view(-1, *parameters[0].shape[1:])


class FlatAdamW(torch.optim.Optimizer):
    """AdamW over `FlatParameters`: clipping, both moments, weight decay and a narrow copy in one pass over memory.

    Gradients are first `measure`d; then the update is owed (`owe`) until every section has been `apply`d, which may be
    done piece by piece. What a step's numbers are is read from the device, so that a captured one can be replayed with
    others. The moments of each parameter are in ``state`` under torch's names.

    Args:
        decayed: the first so many sections decay. narrow: a copy, in a narrower type, of the sections from
            ``narrow_section`` on, whole ones of what `apply` is given; None for none.
        rates: four float64 on the device, of `accl.kernels.triton.adamw.Rule`; whoever replays a captured `apply` fills them with
            what is ``owed`` before.
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        decayed: int,
        weight_decay: float,
        max_norm: float,
        narrow: Tensor | None,
        narrow_section: int,
        rates: Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(flat.parameters, {"betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._flat, self._narrow = flat, narrow
        self._decayed_end, self._narrow_first = flat.bounds[decayed], flat.bounds[narrow_section]
        self._weight_decay, self._betas = weight_decay, betas
        self.first, self.second = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        """Both moments."""
        device = flat.values.device
        self.norm = torch.zeros((), device=device)
        """Of all gradients, as last measured."""
        self.rule = Rule(rates, self.norm, max_norm, *betas, eps)
        self.owed = NOTHING
        self._count = torch.zeros(())
        for parameter in flat.parameters:
            self.state[parameter] = {
                "step": self._count,
                "exp_avg": flat.view(self.first, parameter),
                "exp_avg_sq": flat.view(self.second, parameter),
            }
        self.refresh()

    def refresh(self) -> None:
        """Make the narrow copy true again, after weights were put into the parameters; nothing is owed to them."""
        if self._narrow is not None:
            self._narrow.copy_(self._flat.values[self._narrow_first :][: self._narrow.numel()])
        self._flat.gradients.zero_()
        self.owed = NOTHING

    def measure(self, measured: Mapping[int, Sequence[Tensor]]) -> Tensor:
        """The norm of all gradients.

        Args:
            measured: `accl.kernels.triton.adamw.square_sums` of a section's gradients, by section, where they are known already.
        """
        flat, begin = self._flat, 0
        parts = [part for section in measured.values() for part in section]
        for section in (*sorted(measured), len(flat.bounds) - 1):
            between = flat.gradients[begin : flat.bounds[section]]
            if between.numel():
                parts.append(square_sums(between))
            begin = flat.bounds[min(section + 1, len(flat.bounds) - 1)]
        return torch.sqrt(torch.cat(parts).sum(), out=self.norm)

    def owe(self, step: int, rate: float) -> None:
        """Optimizer step 1, 2, ... is to be applied with the gradients that were measured."""
        self._count.fill_(step)
        self.owed = (rate, rate / (1 - self._betas[0] ** step), (1 - self._betas[1] ** step) ** -0.5, 1.0)

    def apply(self, begin: int, end: int, clear: bool, units: int | None = None) -> None:
        """Do what is owed to the elements from ``begin`` to before ``end``, which decay all or none.

        Args:
            clear, units: see `accl.kernels.triton.adamw.adamw`.
        """
        flat, narrow = self._flat, None
        if self._narrow is not None and self._narrow_first <= begin < self._narrow_first + self._narrow.numel():
            narrow = self._narrow[begin - self._narrow_first : end - self._narrow_first]
            assert len(narrow) == end - begin, "the narrow copy ends within what is updated"
        decay = self._weight_decay if end <= self._decayed_end else 0.0
        p, g, m, v = (part[begin:end] for part in (flat.values, flat.gradients, self.first, self.second))
        adamw(p, g, m, v, narrow, decay, self.rule, clear, units)

    def settle(self) -> None:
        """Do all that is owed, now."""
        if self.owed[-1]:
            self.rule.rates.copy_(torch.tensor(self.owed, dtype=torch.float64))
            bounds = self._flat.bounds
            for begin, end in pairwise(bounds):
                if begin < end:
                    self.apply(begin, end, clear=True)
            self.owed = NOTHING
