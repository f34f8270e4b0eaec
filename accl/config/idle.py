"""Keys that were typed and change nothing, because of another key: a setting that is ignored is said."""

from __future__ import annotations

from collections.abc import Callable, Collection

from accl.config.schema import Config

_CONTRASTIVE = ("loss.temperature", "loss.denominator", "loss.negatives", "loss.uncertainty_weight")
_POLICY = ("temperature", "warmup_epochs", "warmup_steps", "epsilon")

# Keys, whether they change nothing in a configuration, and why that is, as the end of a sentence.
_RULES: tuple[tuple[tuple[str, ...], Callable[[Config], bool], str], ...] = (
    (("train.epochs",), lambda c: c.train.max_steps is not None, "train.max_steps is not null"),
    (
        ("curriculum.warmup_epochs",),
        lambda c: c.curriculum.warmup_steps is not None,
        "curriculum.warmup_steps is not null",
    ),
    (
        (*_CONTRASTIVE, "memory_bank.size", "memory_bank.start_step"),
        lambda c: c.loss.contrastive_weight == 0,
        "loss.contrastive_weight is 0",
    ),
    (
        tuple(f"curriculum.{name}" for name in _POLICY),
        lambda c: c.curriculum.policy == "uniform",
        "curriculum.policy is uniform",
    ),
    (("data.path", "data.revision"), lambda c: c.data.source == "synthetic", "data.source is synthetic"),
    (("memory_bank.start_step",), lambda c: c.memory_bank.size == 0, "memory_bank.size is 0"),
)


def idle_notes(config: Config, typed: Collection[str]) -> list[str]:
    """Return a sentence on each key, of those that were typed, that changes nothing in a configuration."""
    found: dict[str, str] = {}
    for keys, idles, why in _RULES:
        if idles(config):
            found |= {key: why for key in keys if key in typed and key not in found}
    return [f"{key} changes nothing in {config.recipe}: {why}." for key, why in found.items()]
