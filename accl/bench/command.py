"""Commands in processes of their own, as somebody at a terminal waits for them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from accl.errors import AcclError


def environment(folder: Path) -> dict[str, str]:
    """The environment of this process, with bytecode kept under ``folder``.

    An installed accl has its bytecode; this process may be one that must not write any. The first call of a command
    compiles, and belongs to no sample.
    """
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def output(command: list[str], env: dict[str, str]) -> str:
    """What the command prints.

    Raises:
        AcclError: it failed; the last thing it said is the message.
    """
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AcclError(f"{' '.join(command)} failed: {said[-1]}")
    return done.stdout


def seconds(command: list[str], env: dict[str, str], repeat: int) -> list[float]:
    """From start to exit, ``repeat`` times after a first one that is not counted.

    Raises:
        AcclError: it failed.
    """
    samples = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        output(command, env)
        samples.append(time.perf_counter() - began)
    return samples[1:]
