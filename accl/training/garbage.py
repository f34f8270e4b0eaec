"""Python's search for garbage, switched off where it finds none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage within the block, and take all that it leaves for good.

    What imports make stays. Looking through it again and again takes a quarter of a start; afterwards, one look through
    all of it would take as long, and so would many that follow.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()
