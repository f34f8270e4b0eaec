"""One line of what `accl doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"

    @property
    def icon(self) -> str:
        """A sign beside the word, so that nothing is told by colour alone."""
        return {"ok": "✓", "warn": "!", "fail": "✗"}[self.value]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it came out, what was found, and what to do next.

    Args:
        blocks: the profiles that cannot train because of it.
    """

    name: str
    level: Level
    finding: str
    advice: str = ""
    blocks: frozenset[str] = frozenset()
