"""A request to stop, from a signal handler to the training loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Interrupt:
    """A request to finish the step, write a checkpoint and end; set by a signal handler."""

    asked: bool = False
