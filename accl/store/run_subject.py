"""A run as the subject of a query."""

from __future__ import annotations

import math

from accl.store.config_values import config_value
from accl.store.summary import Summary
from accl.store.vocabulary import CONFIG, WORDS, Value


class RunSubject:
    """The values of a run by the keys of `accl.store.vocabulary.RUNS`; ``now`` is in seconds since the epoch."""

    def __init__(self, summary: Summary, now: float) -> None:
        self.summary, self.now = summary, now

    def get(self, key: str, /) -> Value:
        """Return a value; None where it is not known."""
        summary = self.summary
        state, setup = summary.state, summary.setup
        match key:
            case _ if key == WORDS:
                names = f"{setup.recipe} {setup.profile} s{setup.seed}" if setup else ""
                return f"{self._state_word} {names} {summary.run.id} {summary.labels.name} {summary.experiment}"
            case "id":
                return summary.run.id
            case "state":
                return self._state_word
            case "recipe" | "profile" | "seed":
                return getattr(setup, key, None)
            case "tag":
                return summary.labels.tags
            case "note":
                return summary.labels.note
            case "name":
                return summary.labels.name
            case "experiment":
                return summary.experiment
            case "age":
                created = summary.age_key[0]
                return self.now - created if math.isfinite(created) else None
            case "step":
                return state.step if state else None
            case "progress":
                return state.step / state.total_steps if state and state.total_steps else None
            case "loss" | "val" | "test":
                return state.latest.get(_METRICS[key]) if state else None
        return config_value(summary.config, key.removeprefix(CONFIG))

    @property
    def _state_word(self) -> str:
        summary = self.summary
        return summary.state.state.value if summary.state else summary.problem.kind if summary.problem else "unread"


_METRICS = {"loss": "train/loss", "val": "validation/accuracy", "test": "test/accuracy"}
