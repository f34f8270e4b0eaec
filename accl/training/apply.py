"""``python -m accl.training.apply FD``: one job with the model of a run, in a process that may import torch.

The job comes as a JSON object on standard input, with its name as ``job`` and the path of the run as ``run``. Answers
go to the descriptor FD as lines of JSON: ``{"phase": words}`` while it works, and at last ``{"result": ...}`` or
``{"error": {"what", "hint", "exit_code"}}``. `accl.launch.model` is the other end.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accl.errors import AcclError
from accl.store.rundir import RunDir
from accl.streams import guard_streams
from accl.training.garbage import no_collection

Phase = Callable[[str], None]


def _test(run: RunDir, _arguments: Mapping[str, Any], phase: Phase) -> None:
    from accl.training.testing import read_test_split

    read_test_split(run, phase)


def _export(run: RunDir, arguments: Mapping[str, Any], phase: Phase) -> dict[str, Any]:
    from accl.training.export import export

    return export(run, Path(arguments["folder"]), arguments["checkpoint"], phase)


def _ask(run: RunDir, arguments: Mapping[str, Any], phase: Phase) -> Any:
    from accl.training.ask import ask

    text, options, task = arguments["text"], arguments["options"], arguments["task"]
    return ask(run, text, options, task, arguments["checkpoint"], arguments["near"], phase)


def _evaluate(run: RunDir, arguments: Mapping[str, Any], phase: Phase) -> Any:
    from accl.training.other_questions import evaluate_folder

    return evaluate_folder(run, Path(arguments["folder"]), arguments["split"], arguments["checkpoint"], phase)


JOBS: dict[str, Callable[[RunDir, Mapping[str, Any], Phase], Any]] = {
    "ask": _ask,
    "evaluate": _evaluate,
    "export": _export,
    "test": _test,
}


def main(descriptor: int) -> int:
    """Do the job that standard input names, and return 0 if it could be done."""
    os.set_inheritable(descriptor, False)
    with open(descriptor, "w", encoding="utf-8") as answers:

        def answer(**content: Any) -> None:
            answers.write(json.dumps(content) + "\n")
            answers.flush()

        try:
            arguments = json.load(sys.stdin)
            job, run = JOBS[arguments["job"]], RunDir(Path(arguments["run"]))
            answer(phase="loading libraries")
            with no_collection():  # most of a job is imports
                answer(result=job(run, arguments, lambda words: answer(phase=words)))
        except AcclError as error:
            answer(error={"what": error.what, "hint": error.hint, "exit_code": error.exit_code})
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except Exception:
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    guard_streams("utf-8", lossy=True)
    sys.exit(main(int(sys.argv[1])))
