"""Parts that backends with CUDA graphs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accl.training.context import TrainingContext


@contextmanager
def preserve_state(context: TrainingContext) -> Iterator[None]:
    """Undo on exit what happens to curriculum and memory bank inside: for the rehearsal of a step."""
    modules = [context.curriculum.state, *([] if context.bank is None else [context.bank])]
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, before, strict=True):
            module.load_state_dict(values)
