"""Commit of the source tree that runs, for the provenance of what it starts."""

from __future__ import annotations

import os
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

# Git takes some 10 ms, which an experiment of many runs would wait for as often.
ASK_EVERY_S = 5.0


def running_commit() -> dict[str, Any]:
    """Return commit and dirtiness of the source tree, of a few seconds ago at most; empty for an installed package."""
    return _commit_at(int(time.monotonic() / ASK_EVERY_S))


def without_git_variables() -> dict[str, str]:
    """Return the environment without GIT_DIR and its like, which would name another repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}


@lru_cache(maxsize=1)
def _commit_at(_moment: int) -> dict[str, Any]:
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return {}

    def git(*words: str) -> str:
        command = ["git", "-C", str(source), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=without_git_variables())
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain"))} if commit else {}
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine, or a very slow disk
        return {}
