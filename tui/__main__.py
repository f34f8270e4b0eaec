"""The app by itself, as `tui.web` starts it for every page: ``python -m tui ROOT RUN...``, all paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from accl.store.deadline import ending
from accl.store.rundir import RunDir
from tui.app import AcclApp

LOOK_S = 1.0


class PageApp(AcclApp):
    """The app of a page; it ends when the server that started it is gone, however that ended."""

    def on_mount(self) -> None:
        super().on_mount()
        server = os.getppid()
        self.set_interval(LOOK_S, lambda: None if os.getppid() == server else os._exit(1))


if __name__ == "__main__":
    root, *runs = map(Path, sys.argv[1:])
    with ending():
        PageApp(root, opened=[RunDir(run) for run in runs]).run()
        sys.exit()
