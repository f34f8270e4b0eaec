"""``provenance.json``: what a run was at its first start, and every start since. Added to, never overwritten.

::

    run, created, command, git            of the launcher that prepared the run
    config, data, model, curriculum       what the run is; a resume goes on only with the same
    python, packages, device, ...         where it first ran
    starts                                every start: time, command, host, device, versions, git, accepted changes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from accl import config as configuration
from accl.config.tree import flatten, nest
from accl.errors import ConfigError, DamagedError, DataError, RunError
from accl.store.rundir import RunDir
from accl.text import printable

if TYPE_CHECKING:
    from accl.config import Config

# Of the recorded facts, those that are the same at every start of a run, wherever and with whatever backend it trains.
FACTS = (
    *("data.fingerprint", "data.parts", "data.splits", "data.tasks", "data.tokens"),
    *("model.parameters", "model.shapes", "model.encoder", "model.tokenizer", "curriculum.fixed_weights"),
)
_SECTIONS = ("config", "data", "model", "curriculum")
_RESTORE = "Restore it from a backup."


@dataclass(frozen=True)
class Change:
    """A value that is not what it was when the run began; None where there was or is none."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        was, now = (json.dumps(value, ensure_ascii=False) for value in (self.was, self.now))
        return printable(f"{self.key} was {was} and is {now}")


class ChangedError(RunError):
    """A run cannot go on as what it was; the exit code is that of an error of what has changed."""

    def __init__(self, run: RunDir, changes: Sequence[Change]) -> None:
        super().__init__(
            f"{run.id} is not what it was when it began: {'; '.join(map(str, changes))}.",
            f"Undo that, or go on with it: accl resume {run.typed} --accept-changes",
        )
        section = changes[0].key.partition(".")[0]
        self.exit_code = {"config": ConfigError.exit_code, "data": DataError.exit_code}.get(section, RunError.exit_code)


@dataclass(frozen=True)
class Launch:
    """How a training process was started.

    Attributes:
        accept_changes: go on although the run is not what it was.
        command, git: of the launcher; empty at the first start, which finds them in ``provenance.json``.
    """

    accept_changes: bool = False
    command: Sequence[str] = ()
    git: Mapping[str, Any] = field(default_factory=dict)


def read_provenance(run: RunDir) -> dict[str, Any]:
    """Read ``provenance.json``; empty when there is none.

    Raises:
        DamagedError, RunError: it is no JSON object, or what is compared has other types.
    """
    content = run.read_json(run.provenance)
    starts = content.get("starts", [])
    well_formed = all(isinstance(content.get(name, {}), dict) for name in _SECTIONS) and isinstance(starts, list)
    if not well_formed or not all(map(_is_start, starts)):
        raise DamagedError(f"{run.provenance} is damaged: it has other types.", _RESTORE)
    return content


def _is_start(start: Any) -> bool:
    changes = start.get("accepted", {}) if isinstance(start, dict) else None
    return isinstance(changes, dict) and all(isinstance(c, list) and len(c) == 2 for c in changes.values())


def data_fingerprint(content: Mapping[str, Any]) -> str:
    """Return the fingerprint of the questions; of all that it went on with, joined by ``+``, when those changed.

    A run that learnt from several is like none of them: its results are comparable with those of no other.
    """
    accepted = [start.get("accepted", {}).get("data.fingerprint", [])[1:] for start in content.get("starts", [])]
    return "+".join(str(value) for value in (content.get("data", {}).get("fingerprint", ""), *chain(*accepted)))


def config_changes(run: RunDir, content: Mapping[str, Any], config: Config) -> list[Change]:
    """Compare a configuration with the one that the run began with; nothing where that was not recorded.

    Raises:
        DamagedError: what was recorded is no configuration.
    """
    recorded = {key: value for key, value in _in_force(content).items() if key.startswith("config.")}
    if not recorded:
        return []
    import yaml  # here: most users of provenance never compare a configuration

    try:
        began = configuration.parse(yaml.safe_dump(nest(recorded)["config"]), run.provenance)
    except (ConfigError, TypeError, AttributeError) as error:
        raise DamagedError(f"{run.provenance} is damaged: it holds no configuration ({error}).", _RESTORE) from error
    different = configuration.difference(began, config)
    return [Change(f"config.{key}", was, now) for key, (was, now) in different.items()]


def check_config(run: RunDir, config: Config) -> None:
    """Refuse a configuration that is not the one that the run began with.

    Raises:
        ChangedError: it has changed.
        DamagedError: as `config_changes` and `read_provenance`, or nothing says what the run began as.
    """
    content = read_provenance(run)
    # An earlier accl recorded neither run nor configuration, but never nothing.
    if not content or ("run" in content and "config" not in content):
        raise DamagedError(
            f"{run.provenance} is missing or incomplete: what {run.id} began as is not known.",
            f"{_RESTORE} Or go on all the same: accl resume {run.typed} --accept-changes",
        )
    if changes := config_changes(run, content, config):
        raise ChangedError(run, changes)


def fact_changes(content: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Compare what a run is with what it was; facts that were not recorded count as unchanged."""
    recorded, present = _in_force(content), flatten(now)
    changes = []
    for fact in FACTS:
        was, new = _of(fact, recorded), _of(fact, present)
        if was:
            keys = sorted(key for key in was | new if was.get(key) != new.get(key))
            changes += [Change(key, was.get(key), new.get(key)) for key in keys]
    return changes


def record_start(
    run: RunDir,
    content: Mapping[str, Any],
    now: Mapping[str, Any],
    start: Mapping[str, Any],
    accepted: Sequence[Change],
) -> None:
    """Add a start, and whatever was never recorded before.

    Args:
        content: from `read_provenance`. now: what the run is, by section.

    Raises:
        RunError: it cannot be written, as on a full disk.
    """
    merged = dict(content)
    for name, value in now.items():
        old = content.get(name, value)
        merged[name] = {**value, **old} if name in _SECTIONS else old
    changes = {change.key: [change.was, change.now] for change in accepted}
    merged["starts"] = [*content.get("starts", []), {**start, "accepted": changes}]
    try:
        run.write_json(run.provenance, merged)
    except OSError as error:
        raise RunError(f"{run.provenance} cannot be written ({error.strerror}).", "Make room on its disk?") from error


def _in_force(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run began as, by dotted key, with the changes that were accepted since."""
    values = flatten({name: content.get(name, {}) for name in _SECTIONS})
    for start in content.get("starts", []):
        values |= {key: change[1] for key, change in start.get("accepted", {}).items()}
    return values


def _of(fact: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key == fact or key.startswith(f"{fact}.")}
