"""All trained parameters in one tensor, so that what touches many of them is one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from accl.kernels.triton.adamw import AdamWParams, adamw, square_sums

# Parameters begin at multiples of so many elements: matrix products need aligned operands.
ALIGNMENT = 64


class FlatParameters:
    """One fp32 tensor that holds parameters in the order given, and another one for their gradients.

    Modules keep their parameters: each one's ``data`` and ``grad`` become views.

    Args:
        sections: parameters by section; sections lie one after the other.

    Attributes:
        values, gradients: n, fp32.
        bounds: index at which each section begins, and the end of the last one.
    """

    def __init__(self, sections: Sequence[Iterable[nn.Parameter]]) -> None:
        self._offsets: dict[nn.Parameter, int] = {}
        self.bounds = [0]
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
        """All parameters in their order."""
        return list(self._offsets)

    def section(self, flat: Tensor, index: int) -> Tensor:
        """Return the part of a flat tensor, n elements, that belongs to a section."""
        return flat[self.bounds[index] : self.bounds[index + 1]]

    def view(self, flat: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return the part of a flat tensor that belongs to a parameter, in its shape."""
        first = self._offsets[parameter]
        return flat[first : first + parameter.numel()].view(parameter.shape)

    def span(self, flat: Tensor, parameters: Sequence[nn.Parameter], skipped: int = 0) -> Tensor:
        """Return the part of a flat tensor that belongs to adjacent parameters, joined along their first dimension.

        Args:
            skipped: number of elements that ``flat`` lacks at its beginning.
        """
        first = self._offsets[parameters[0]] - skipped
        end = first
        for parameter in parameters:
            assert self._offsets[parameter] - skipped == end, "parameters are not adjacent"
            end += parameter.numel()
        return flat[first:end].view(-1, *parameters[0].shape[1:])


class FlatAdamW:
    """AdamW over `FlatParameters`, with clipping by the global norm.

    Args:
        decayed, updated: number of sections, from the first on, that weight decay applies to, and that `step` updates.
        rates: 3, float64, on the device; see `accl.kernels.triton.adamw.AdamWParams`. `step` reads it, so that captured
            calls can be replayed with other values.

    Attributes:
        exp_avg, exp_avg_sq: n, fp32; both moments. params: parameters of the kernels.
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        decayed: int,
        updated: int,
        weight_decay: float,
        max_norm: float,
        rates: Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._flat, self._weight_decay = flat, weight_decay
        self._decayed_end, self._end = flat.bounds[decayed], flat.bounds[updated]
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        self.params = AdamWParams(rates, torch.zeros((), device=flat.values.device), max_norm, *betas, eps)

    def step(self, *others: Tensor) -> Tensor:
        """Update parameters by the gradients in place; return the norm of all gradients before clipping, a scalar.

        Args:
            others: sums of squares of the gradients that are not updated here, fp32.
        """
        flat, norm = self._flat, self.params.norm
        torch.sqrt(torch.cat([square_sums(flat.gradients[: self._end]), *others]).sum(), out=norm)
        for part, weight_decay in (
            (slice(None, self._decayed_end), self._weight_decay),
            (slice(self._decayed_end, self._end), 0.0),
        ):
            values, gradients = flat.values[part], flat.gradients[part]
            adamw(values, gradients, self.exp_avg[part], self.exp_avg_sq[part], weight_decay, self.params)
        return norm
