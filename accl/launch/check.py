"""The result of one check of `accl doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"

    @property
    def icon(self) -> str:
        """Sign beside the word, so that colour alone never carries the outcome."""
        return {"ok": "✓", "warn": "!", "fail": "✗"}[self.value]


@dataclass(frozen=True)
class Check:
    """Outcome of one check, a line of the report.

    Attributes:
        name: subject of the check.
        finding: what this machine has, in words.
        advice: what to do next.
        blocks: profiles that cannot train because of it.
    """

    name: str
    level: Level
    finding: str
    advice: str = ""
    blocks: frozenset[str] = frozenset()
