"""A wish to stop, from a signal handler to the loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Interrupt:
    """Set from a signal handler: finish the step, write a checkpoint, leave."""

    asked: bool = False
