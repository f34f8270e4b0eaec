"""Jobs that need the model of a run, done by a process of their own: this one never imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from accl.errors import AcclError, TrainingError
from accl.launch.process import environment
from accl.store.rundir import RunDir

GRACE_S = 10.0  # for a process to end after SIGTERM


def apply_model(job: str, run: RunDir, phase: Callable[[str], None], **arguments: Any) -> Any:
    """Do a job of `accl.training.apply` with the model of a run, and return its result.

    Args:
        phase: called with a few words whenever the job turns to something else.
        arguments: of the job, as JSON can hold them.

    Raises:
        AcclError: as it was raised there, with its exit code.
        TrainingError: the process ended without an answer.
    """
    given = json.dumps({"job": job, "run": str(run.path.resolve()), **arguments}).encode()
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as log, open(reader, encoding="utf-8") as answers:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "accl.training.apply", str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                env=environment(),
            )
        finally:
            os.close(writer)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended already, and why is told below
                process.stdin.write(given)
                process.stdin.close()
            result: dict[str, Any] = {}
            for line in answers:
                answer = json.loads(line)
                if "phase" in answer:
                    phase(answer["phase"])
                result = answer
            process.wait()
        finally:
            _end(process)
        if "result" in result:
            return result["result"]
        if "error" in result:
            error = AcclError(result["error"]["what"], result["error"]["hint"])
            error.exit_code = result["error"]["exit_code"]
            raise error
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        what = f"The process with the model of {run.id} ended with exit code {process.returncode}{last}."
        raise TrainingError(what, "" if lines else "Was it killed, or did the memory run out?")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that is still there, as after Ctrl-C."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
