"""What every path does above the encoder: heads, loss, and the account that is kept of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from accl.kernels.cpu.contrast import Contrast
from accl.kernels.triton.aside import NOT_ASIDE, Aside
from accl.method.model import ModelOutput
from accl.training.device import Labels
from accl.training.objective import Objective, classify, contrast, figures, objective
from accl.training.setup import Workbench


def enable_bank(bench: Workbench, step: int) -> None:
    """Let the contrastive loss see the memory bank from the step on from which it may."""
    if bench.bank is not None and bench.bank.enabled != (step > bench.bank_start):
        bench.bank.enable(step > bench.bank_start)


@dataclass(frozen=True)
class Judged:
    """What the heads made of a batch, and its loss.

    Attributes:
        shared_ND, apart_ND: the pooled features as leaves, one for each term of the loss.
    """

    shared_ND: Tensor
    apart_ND: Tensor
    output: ModelOutput
    result: Objective
    labels: Labels

    def backward(self, aside: Aside = NOT_ASIDE) -> Tensor:
        """The heads' gradients, the contrastive ones ``aside``, which is joined. ``shared_ND.grad`` is then what the
        encoder is owed; returns the norms of `accl.training.objective.Objective.backward`."""
        return self.result.backward(self.shared_ND, self.apart_ND, aside)

    def figures(self, norms: Tensor) -> Tensor:
        """The `accl.training.objective.FIGURES` of the batch."""
        labels = self.labels
        return figures(self.result, norms, self.output, labels.answer_B, labels.task_B, labels.text_id_B)


def judge(
    bench: Workbench,
    pooled_ND: Tensor,
    labels: Labels,
    aside: Aside = NOT_ASIDE,
    faster: Contrast | None = None,
) -> Judged:
    """Heads and loss, the contrastive ones ``aside``; ``faster`` as for `accl.training.objective.contrast`."""
    model, config = bench.model, bench.config.loss
    # Each a leaf of its own, so that neither branch waits for the other.
    shared_ND, apart_ND = (pooled_ND.detach().requires_grad_() for _ in range(2))

    def represented() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        with bench.placement.autocasting():
            features_BD, z_BE = model.represent(apart_ND)
        return features_BD, z_BE, contrast(z_BE, labels.task_B, labels.text_id_B, config, bench.bank, faster)

    def classified() -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with bench.placement.autocasting():
            logits_BC = model.classify(shared_ND, labels.task_B)
        return logits_BC, classify(logits_BC, labels.answer_B, config)

    (features_BD, z_BE, contrasted), (logits_BC, found) = aside.both(represented, classified, pooled_ND)
    output = ModelOutput(shared_ND, logits_BC, features_BD, z_BE)
    return Judged(shared_ND, apart_ND, output, objective(contrasted, found, config, aside), labels)


def watch(bench: Workbench, judged: Judged) -> None:
    """Show a batch to curriculum and memory bank."""
    labels, output = judged.labels, judged.output
    bench.curriculum.observe(output, labels.answer_B, labels.task_B)
    if bench.bank is not None:
        bench.bank.write(output.z_BE, labels.task_B, labels.text_id_B)


@contextmanager
def undone(bench: Workbench) -> Iterator[None]:
    """What curriculum and bank are shown inside is forgotten afterwards: for rehearsals."""
    watching = [bench.curriculum.state, *([] if bench.bank is None else [bench.bank])]
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in watching]
    try:
        yield
    finally:
        for module, values in zip(watching, before, strict=True):
            module.load_state_dict(values)
