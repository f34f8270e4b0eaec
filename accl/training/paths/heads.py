"""What every path does above the encoder: heads, loss, and the account that is kept of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from accl.fast.aside import NOT_ASIDE, Aside
from accl.method.model import ModelOutput
from accl.training.device import Labels
from accl.training.objective import Objective, figures, objective
from accl.training.setup import Workbench


def open_bank(bench: Workbench, step: int) -> None:
    """Let the contrastive loss see the memory bank from the step on from which it may."""
    if bench.bank is not None and bench.bank.is_open != (step > bench.bank_start):
        bench.bank.open(step > bench.bank_start)


@dataclass(frozen=True)
class Learnt:
    """What the heads made of a batch.

    Attributes:
        shared_ND: the pooled features as a leaf; its ``grad`` is what the encoder is owed.
    """

    shared_ND: Tensor
    output: ModelOutput
    result: Objective
    norms: Tensor
    labels: Labels


def learn_heads(bench: Workbench, pooled_ND: Tensor, labels: Labels, aside: Aside = NOT_ASIDE) -> Learnt:
    """Heads, loss and the heads' gradients: the contrastive ones ``aside``, which is joined."""
    model = bench.model
    # Each a leaf of its own, so that neither branch waits for the other.
    shared_ND, apart_ND = (pooled_ND.detach().requires_grad_() for _ in range(2))
    with bench.placement.autocasting():
        with aside(pooled_ND):
            features_BD, z_BE = model.represent(apart_ND)
        output = ModelOutput(shared_ND, model.classify(shared_ND, labels.task_B), features_BD, z_BE)
    result = objective(output, labels.answer_B, labels.task_B, labels.text_B, bench.config.loss, bench.bank, aside)
    return Learnt(shared_ND, output, result, result.backward(shared_ND, apart_ND, aside), labels)


def account(bench: Workbench, learnt: Learnt) -> Tensor:
    """Show the batch to curriculum and memory bank; returns its `accl.training.objective.FIGURES`."""
    labels, output = learnt.labels, learnt.output
    bench.curriculum.observe(output, labels.answer_B, labels.task_B)
    if bench.bank is not None:
        bench.bank.write(output.z_BE, labels.task_B, labels.text_B)
    return figures(learnt.result, learnt.norms, output, labels.answer_B, labels.task_B, labels.text_B)


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
