"""The result of one check of `accl doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the report: ``finding`` says what this machine has, ``blocks`` names profiles that cannot train."""

    name: str
    level: Level
    finding: str
    advice: str = ""
    blocks: frozenset[str] = frozenset()


def assess(name: str, finding: str, advice: str = "", blocks: frozenset[str] = frozenset()) -> Check:
    """Make a check: all is well without ``advice``; with it, a failure where profiles are blocked, else a warning."""
    if not advice:
        return Check(name, Level.OK, finding)
    return Check(name, Level.FAIL if blocks else Level.WARN, finding, advice, blocks)
