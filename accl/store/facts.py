"""Facts about a run: every value of its configuration with where it came from, and its provenance, as text.

Files of a run may hold anything: what cannot be read is a problem among the facts, and harms nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from accl.config.explain import explain_all
from accl.config.shipped import available, configs_folder
from accl.config.tree import flatten
from accl.errors import AcclError, DamagedError
from accl.store.config_values import config_values, default_values, layer_values
from accl.store.files import RESTORE
from accl.store.provenance import data_fingerprint, read_provenance
from accl.store.rundir import RunDir
from accl.store.summary import CONFIG_LIMIT, reading

UNKNOWN = "?"  # an origin: another file than those that come with accl, or another version of them
# In this order; what else there is follows, the encoder's own configuration last.
_FIRST = (
    "created",
    "based_on",
    "command",
    "git",
    "starts",
    "accl",
    "python",
    "packages",
    "device",
    "platform",
    "processor",
    "data",
)
_ELSEWHERE = ("run", "config", "starts")  # shown in other places
Values = Mapping[str, str | float]


@dataclass(frozen=True)
class Facts:
    """Configuration and provenance of a run.

    Attributes:
        config: values by dotted key, in the order of the file.
        origins: layer that each value came from.
        meanings: a sentence on each key.
        provenance: names and texts.
        problems: why something is missing.
    """

    config: Values = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    provenance: tuple[tuple[str, str], ...] = ()
    problems: tuple[AcclError, ...] = ()


class FactsReader:
    """Reader of the facts of a run, which reads the files again only when they were replaced."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.last = Facts()
        self._signature: tuple[object, ...] | None = None

    def read(self) -> Facts:
        """Return the facts as they are now."""
        signature = tuple(_signature(path) for path in (self.run.config, self.run.provenance))
        if signature != self._signature:
            self._signature, self.last = signature, read_facts(self.run)
        return self.last


def _signature(path: os.PathLike[str]) -> tuple[int, int] | None:
    with suppress(OSError):
        state = os.lstat(path)
        return state.st_mtime_ns, state.st_ino
    return None


def read_facts(run: RunDir) -> Facts:
    """Read the facts of a run."""
    problems: list[AcclError] = []
    content: dict[str, Any] = {}
    values: Values = {}
    rows: tuple[tuple[str, str], ...] = ()
    try:
        with reading(run.provenance):
            content = read_provenance(run)
            rows = tuple(_provenance_rows(content))
        if not content:
            raise DamagedError(f"{run.provenance} is missing.", RESTORE)
    except AcclError as error:
        problems.append(error)
    try:
        with reading(run.config):
            if len(text := run.config_text()) > CONFIG_LIMIT:
                raise DamagedError(f"{run.config} has more than {CONFIG_LIMIT:,} characters.", RESTORE)
            values = config_values(text, run.config)
    except AcclError as error:
        problems.append(error)
    meanings = {known.key: known.summary for known in explain_all()}
    return Facts(values, config_origins(values, content), meanings, rows, tuple(problems))


def config_origins(values: Values, content: Mapping[str, Any]) -> dict[str, str]:
    """Return the layer that each value of a configuration came from.

    What was typed is taken from the recorded command; a value that was not, from the run that this one is based on, or
    else from the topmost of the files that come with accl and give the key this value. `UNKNOWN` where there is none.
    """
    typed = _typed_keys(content.get("command"))
    accepted: dict[str, str] = {}
    for number, start in enumerate(content.get("starts", []), start=1):
        accepted |= dict.fromkeys(start.get("accepted", {}), f"start {number}")
    layers = [
        (f"{kind[:-1]} {name}", layer_values(configs_folder() / kind / f"{name}.yaml"))
        for kind in ("recipes", "profiles")
        if (name := values.get(kind[:-1])) in available(kind)
    ]
    layers.append(("base", default_values()))

    def origin(key: str) -> str:
        if found := accepted.get(f"config.{key}") or typed.get(key):
            return found
        if based_on := content.get("based_on"):
            return f"run {based_on}"
        return next((name for name, layer in layers if key in layer and layer[key] == values[key]), UNKNOWN)

    return {key: "command" if key in ("recipe", "profile") else origin(key) for key in values}


def _typed_keys(command: Any) -> dict[str, str]:
    """Return the keys that a recorded command sets, each with the option that does."""
    words = _words(command)
    keys: dict[str, str] = {}
    for i, word in enumerate(words):
        option, equals, rest = word.partition("=")
        value = rest if equals else words[i + 1] if i + 1 < len(words) else ""
        if option in ("--set", "-s", "--grid", "-g"):
            keys[value.partition("=")[0].strip()] = "--set" if option in ("--set", "-s") else "--grid"
        elif option in ("--seed", "--seeds"):
            keys["train.seed"] = option
    if "sweep" in words[1:3]:  # perhaps after --debug
        keys.setdefault("eval.test", "sweep")
    if "sweep" in words[1:3] or "ablate" in words[1:3]:
        keys.setdefault("train.seed", "--seeds")
    if "data.path" in keys:  # which implies the source
        keys.setdefault("data.source", "--set")
    return keys


def _words(command: Any) -> list[str]:
    if isinstance(command, str):
        with suppress(ValueError):
            return shlex.split(command)
        return []
    return [word for word in command if isinstance(word, str)] if isinstance(command, list) else []


def _provenance_rows(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = {name: value for name, value in content.items() if name not in _ELSEWHERE}
    if isinstance(model := known.get("model"), dict) and "encoder" in model:
        known["model"] = {name: value for name, value in model.items() if name != "encoder"}
        known["encoder"] = model["encoder"]
    if isinstance(data := known.get("data"), dict) and data:
        known["data"] = {**data, "fingerprint": data_fingerprint(content)}
    ordered = {name: known[name] for name in (*_FIRST, *known) if name in known}
    return [*_starts(content), *((key, _text(value)) for key, value in flatten(ordered).items())]


def _starts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every start: when, where and with what, and what was accepted or has other versions than before."""
    rows: list[tuple[str, str]] = []
    before: Any = None
    for number, start in enumerate(content.get("starts", []), start=1):
        git, device = start.get("git"), start.get("device")
        commit = f"{_text(git.get('commit'))[:12]}{' dirty' if git.get('dirty') else ''}" if _is_map(git) else ""
        kind = ", ".join(map(_text, device.values())) if _is_map(device) else _text(device)
        parts = [_text(start.get("time")), _text(start.get("host")), kind, commit]
        rows.append((f"start {number}", " · ".join(part for part in parts if part)))
        if number > 1:
            rows.append((f"start {number} command", _text(start.get("command"))))
        versions = start.get("versions")
        if before is not None and _is_map(versions) and _is_map(before):
            changed = [f"{name} {_text(value)}" for name, value in versions.items() if before.get(name) != value]
            rows += [(f"start {number} versions", ", ".join(changed))] if changed else []
        before = versions
        for key, (was, now) in start.get("accepted", {}).items():
            rows.append((f"start {number} accepted {key}", f"{_text(was)} → {_text(now)}"))
    return rows


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return shlex.join(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)
