"""Values that no view holds, read in the background the first time that they are asked for, and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from textual.widget import Widget

from accl.errors import AcclError
from accl.store.deadline import each_within
from accl.store.summary import as_problem
from tui.threads import in_daemon_thread

DEADLINE_S = 10.0
KEPT = 128


class Recall:
    """Values by key, for a widget, which is told when one has arrived.

    Attributes:
        problem: why the value that was asked for last could not be read; None if it could.
    """

    def __init__(self, owner: Widget, arrived: Callable[[], None]) -> None:
        self._owner, self._arrived = owner, arrived
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._pending: set[Hashable] = set()
        self._problems: dict[Hashable, AcclError] = {}

    @property
    def is_pending(self) -> bool:
        return bool(self._pending)

    @property
    def problem(self) -> AcclError | None:
        """Why one of the values could not be read."""
        return next(iter(self._problems.values()), None)

    def forget_problems(self) -> None:
        """Read again what could not be read."""
        self._problems.clear()

    def get(self, key: Hashable, read: Callable[[], Any], default: Any = None) -> Any:
        """Return the value of a key, or the default while ``read`` fetches it in a thread, or after it failed."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._pending and key not in self._problems:
            self._pending.add(key)
            self._owner.run_worker(self._fetch(key, read))
        return default

    async def _fetch(self, key: Hashable, read: Callable[[], Any]) -> None:
        ((_, answer),) = await in_daemon_thread(lambda: list(each_within(DEADLINE_S, lambda _: read(), [key])))
        self._pending.discard(key)
        if isinstance(answer, BaseException):
            self._problems[key] = as_problem(answer, "")
        else:
            self._kept[key] = answer
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._arrived()
