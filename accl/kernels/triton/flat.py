"""All trained parameters in one tensor, so that what touches many of them is one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from accl.kernels.triton.adamw import AdamWParams, adamw, square_sums

# Parameters begin at multiples of so many elements: matrix products need aligned operands.
ALIGNMENT = 64
# `FlatAdamW.pending_update` where no update is pending; see `accl.kernels.triton.adamw.AdamWParams.rates`.
NO_UPDATE = (0.0, 0.0, 0.0, 0.0)


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


class FlatAdamW(torch.optim.Optimizer):
    """AdamW over `FlatParameters`: clipping, moments, weight decay and a low-precision copy in one pass over memory.

    `compute_norm` reads the gradients and `schedule_update` makes an update pending, which is done when `apply_update`
    was called for all elements, in any number of pieces, or by `finish_pending_update`. Kernels read the learning rate
    and the like from ``rates`` on the device, so that captured calls can be replayed with other values. ``state`` has
    the moments of each parameter under the names of torch's AdamW.

    Args:
        decayed: number of sections, from the first on, that weight decay applies to.
        low_precision_copy: copy in another type of consecutive elements, from ``copied_section`` on; None for none. A
            call of `apply_update` lies inside of it or outside.
        rates: 4, float64, on the device; see `accl.kernels.triton.adamw.AdamWParams`. Before captured calls of
            `apply_update` are replayed, the caller fills it with ``pending_update``.

    Attributes:
        exp_avg, exp_avg_sq: n, fp32; both moments. norm: scalar, fp32; result of the last `compute_norm`.
        params: parameters of the kernels. pending_update: values for ``rates``; `NO_UPDATE` if nothing is pending.
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        decayed: int,
        weight_decay: float,
        max_norm: float,
        low_precision_copy: Tensor | None,
        copied_section: int,
        rates: Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(flat.parameters, {"betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._flat, self._copy = flat, low_precision_copy
        self._decayed_end, self._copy_first = flat.bounds[decayed], flat.bounds[copied_section]
        self._weight_decay, self._betas = weight_decay, betas
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        self.norm = torch.zeros((), device=flat.values.device)
        self.params = AdamWParams(rates, self.norm, max_norm, *betas, eps)
        self.pending_update = NO_UPDATE
        self._count = torch.zeros(())
        for parameter in flat.parameters:
            self.state[parameter] = {
                "step": self._count,
                "exp_avg": flat.view(self.exp_avg, parameter),
                "exp_avg_sq": flat.view(self.exp_avg_sq, parameter),
            }
        self.sync_weights()

    def sync_weights(self) -> None:
        """Update the copy after weights were written to the parameters; drop gradients and any pending update."""
        if self._copy is not None:
            self._copy.copy_(self._flat.values[self._copy_first :][: self._copy.numel()])
        self._flat.gradients.zero_()
        self.pending_update = NO_UPDATE

    def compute_norm(self, known: Mapping[int, Sequence[Tensor]]) -> Tensor:
        """Compute the norm of all gradients; a scalar, which the next update clips by.

        Args:
            known: `accl.kernels.triton.adamw.square_sums` of sections whose gradients were summed already, by section.
        """
        flat, begin = self._flat, 0
        parts = [part for section in known.values() for part in section]
        for section in (*sorted(known), len(flat.bounds) - 1):
            between = flat.gradients[begin : flat.bounds[section]]
            if between.numel():
                parts.append(square_sums(between))
            begin = flat.bounds[min(section + 1, len(flat.bounds) - 1)]
        return torch.sqrt(torch.cat(parts).sum(), out=self.norm)

    def schedule_update(self, step: int, rate: float) -> None:
        """Make the update of optimizer step 1, 2, ... pending, at a learning rate, with the gradients in place."""
        self._count.fill_(step)
        self.pending_update = (rate, rate / (1 - self._betas[0] ** step), (1 - self._betas[1] ** step) ** -0.5, 1.0)

    def apply_update(self, begin: int, end: int, zero_grad: bool, num_sms: int | None = None) -> None:
        """Do the pending update for the elements [begin, end), to all or none of which weight decay applies.

        Args:
            zero_grad, num_sms: see `accl.kernels.triton.adamw.adamw`.
        """
        flat, copy = self._flat, None
        if self._copy is not None and self._copy_first <= begin < self._copy_first + self._copy.numel():
            copy = self._copy[begin - self._copy_first : end - self._copy_first]
            assert len(copy) == end - begin, "the low-precision copy ends within the updated elements"
        weight_decay = self._weight_decay if end <= self._decayed_end else 0.0
        p, g, m, v = (part[begin:end] for part in (flat.values, flat.gradients, self.exp_avg, self.exp_avg_sq))
        adamw(p, g, m, v, copy, weight_decay, self.params, zero_grad, num_sms)

    def finish_pending_update(self) -> None:
        """Do the pending update for all elements now; nothing where none is pending."""
        if self.pending_update[-1]:
            self.params.rates.copy_(torch.tensor(self.pending_update, dtype=torch.float64))
            for begin, end in pairwise(self._flat.bounds):
                if begin < end:
                    self.apply_update(begin, end, zero_grad=True)
            self.pending_update = NO_UPDATE
