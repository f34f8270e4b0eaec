"""A start of a run: what it is now is held against what it was when it began, and recorded."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from accl.config import Config
from accl.config.tree import flatten
from accl.store.provenance import (
    Change,
    ChangedError,
    Launch,
    config_changes,
    fact_changes,
    read_provenance,
    record_start,
)
from accl.store.rundir import RunDir
from accl.training.context import Notice
from accl.training.provenance import Provenance, environment


def record(
    run: RunDir, config: Config, provenance: Provenance, determinism: Mapping[str, Any], launch: Launch
) -> list[Notice]:
    """Compare data and model with those that the run began with, and record this start.

    Returns:
        what the user should know of it.

    Raises:
        ChangedError: something has changed, and that was not accepted; nothing is recorded.
    """
    content = read_provenance(run)
    if launch.accept_changes and "config" not in content:  # incomplete: its id may be as wrong as the rest
        content = {key: value for key, value in content.items() if key != "run"}
    machine = {**environment(), "device": provenance.device, "determinism": dict(determinism)}
    # As JSON gives it back.
    what = json.loads(json.dumps({"config": config.model_dump(), **provenance.as_json()}))
    changes = [*config_changes(run, content, config), *fact_changes(content, what)]
    if changes and not launch.accept_changes:
        raise ChangedError(run, changes)
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(launch.command) or content.get("command", sys.orig_argv),
        "host": socket.gethostname(),
        "device": provenance.device,
        "versions": {"python": machine["python"], **machine["packages"]},
        "git": dict(launch.git) or content.get("git", {}),
    }
    record_start(run, content, {**what, **machine}, start, changes)
    return [*_notices(run, content, changes), *_moved(content, {**what, **machine}, start)]


def _notices(run: RunDir, content: Mapping[str, Any], changes: Sequence[Change]) -> list[Notice]:
    if changes:
        return [Notice("warning", "accepted", f"{run.id} goes on changed, as accepted: {'; '.join(map(str, changes))}")]
    if "config" not in content:
        old = "an earlier accl did not record what the run began as: only what it did record could be compared"
        return [Notice("warning", "provenance", old)]
    return []


def _moved(content: Mapping[str, Any], now: Mapping[str, Any], start: Mapping[str, Any]) -> list[Notice]:
    """Say what differs from the first start and may change numbers in their last bits, or nothing at all."""
    was = flatten({name: content[name] for name in ("device", "python", "packages", "git") if name in content})
    new = flatten({**now, "git": start["git"]})
    folder = content.get("data", {}).get("folder")
    changed = [str(Change(key, old, new.get(key))) for key, old in was.items() if new.get(key) != old]
    notices = []
    if changed:
        notices.append(Notice("warning", "provenance", f"not as at the first start: {'; '.join(changed)}"))
    if folder is not None and folder != now["data"]["folder"]:
        notices.append(
            Notice("info", "data", str(Change("the folder of the same questions", folder, now["data"]["folder"])))
        )
    return notices
