"""All trained parameters in one row of memory, so that what touches all of them is one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from accl.fast.kernels import adamw

# Elements that a parameter begins at a multiple of: matrix products want aligned operands.
ALIGNMENT = 64


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

    The learning rate comes from the device (`step`), so that a captured step can be replayed with another one. The
    moments of each parameter are in ``state`` under torch's names.

    Args:
        decayed: the first so many elements decay. narrow: see `accl.fast.kernels.adamw`, from ``narrow_first`` on.
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        decayed: int,
        weight_decay: float,
        max_norm: float,
        narrow: Tensor | None,
        narrow_first: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(flat.parameters, {"betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._flat, self._narrow = flat, narrow
        self._decayed, self._narrow_first = decayed, narrow_first
        self._weight_decay, self._max_norm, self._betas, self._eps = weight_decay, max_norm, betas, eps
        self._first, self._second = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        self._count = torch.zeros(())
        for parameter in flat.parameters:
            self.state[parameter] = {
                "step": self._count,
                "exp_avg": flat.view(self._first, parameter),
                "exp_avg_sq": flat.view(self._second, parameter),
            }
        self.refresh()

    def refresh(self) -> None:
        """Make the narrow copy true again, after weights were put into the parameters."""
        if self._narrow is not None:
            self._narrow.copy_(self._flat.values[self._narrow_first :][: self._narrow.numel()])

    def rates(self, step: int, rate: float) -> list[float]:
        """What `update` wants for optimizer step 1, 2, ...; counts it."""
        self._count.fill_(step)
        return [rate, rate / (1 - self._betas[0] ** step), (1 - self._betas[1] ** step) ** -0.5]

    def update(self, rates: Tensor, measured: int, norms: Tensor) -> Tensor:
        """Clip and apply the gradients; returns their norm before that.

        Args:
            rates: three float64 on the device, see `rates`.
            measured: a section whose gradients were measured when they were made; norms: of its parts.
        """
        gradients, bounds = self._flat.gradients, self._flat.bounds
        rest = (gradients[: bounds[measured]], gradients[bounds[measured + 1] :])
        parts = [norms, *(torch.linalg.vector_norm(part).reshape(1) for part in rest)]
        norm: Tensor = torch.linalg.vector_norm(torch.cat(parts))
        adamw(
            self._flat.values,
            self._flat.gradients,
            self._first,
            self._second,
            self._narrow,
            rates,
            norm,
            decayed=self._decayed,
            narrow_first=self._narrow_first,
            max_norm=self._max_norm,
            betas=self._betas,
            eps=self._eps,
            weight_decay=self._weight_decay,
        )
        return norm
