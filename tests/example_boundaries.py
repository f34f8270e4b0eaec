"""Boundaries at which the examples of commands are cut, executed in the process of a command before it runs.

What would train, measure for minutes or open the app is replaced here and nowhere else, one boundary each: processes
with a model, the measurements of `accl bench`, the app's loop and its server, and the shell that is looked for.
"""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from typing import Any

import typer._completion_shared
import typer.completion

from accl.bench.report import Report, Row, row

tempfile.tempdir = os.environ["TMPDIR"]  # `accl demo` leaves its folder there

_FILES = """
import json, os, shutil, sys

made = os.environ["EXAMPLE_RUN"]

def copy_database(path):
    new = os.path.join(path, "new")
    shutil.copyfile(os.path.join(made, "run.duckdb"), new)
    os.replace(new, os.path.join(path, "run.duckdb"))  # the old one may be a link

def read(path, name):
    with open(os.path.join(path, name)) as file:
        return json.load(file)

def write(path, name, content):
    with open(os.path.join(path, "new"), "w") as file:
        json.dump(content, file)
    os.replace(file.name, os.path.join(path, name))
"""

# A trainer, and a worker that trains all that waits: each run becomes what the finished run in $EXAMPLE_RUN is.
_TRAIN = """
folder = sys.argv[-1]
paths = [folder]
if sys.argv[1] == "accl.launch.worker":
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    paths = [path for path in paths if os.path.exists(os.path.join(path, "queue.json"))]
for path in paths:
    copy_database(path)
    write(path, "provenance.json", {**read(made, "provenance.json"), **read(path, "provenance.json")})
    own = {key: value for key, value in read(path, "state.json").items() if key in ("pid", "host", "started")}
    write(path, "state.json", {**read(made, "state.json"), **own})
    if os.path.exists(os.path.join(path, "queue.json")):
        os.remove(os.path.join(path, "queue.json"))
"""

# A process with the model of a run: it answers what a job of `accl.training.apply` answers, and tests like a trainer.
_APPLY = """
job = json.load(sys.stdin)
result = {"step": 200, "warnings": []}
if job["job"] == "test":
    copy_database(job["run"])
if job["job"] == "export":
    result |= {"files": {"config.json": 1200}, "sampled": 20, "equal": 20}
if job["job"] == "ask":
    near = {"cosine": 0.5, "task": "virology", "text": "Which?", "options": ["a", "b"], "answer": 0}
    result |= {"probabilities": [1 / len(job["options"]) for _ in job["options"]], "space": "features"}
    result |= {"task": job["task"] or "virology", "why": "the nearest", "no_neighbours": "", "truncated": 0}
    result |= {"tasks": [near] * job["near"], "questions": [near] * job["near"]}
if job["job"] == "evaluate":
    group = {"kind": "task", "name": "virology", "n": 4, "correct": 3, "learnt": True, "floors": {"longest": 0.25}}
    metrics = dict.fromkeys(["macro_accuracy", "loss", "ece", "brier"], 0.5)
    result |= {"groups": [group], "metrics": metrics, "learnt_questions": 0, "sees_task": False}
    result |= {"source": job["folder"], "split": job["split"] or "test"}
with open(int(sys.argv[-1]), "w") as answers:
    print(json.dumps({"phase": "loading the model"}), file=answers)
    print(json.dumps({"result": result}), file=answers)
"""

_PROGRAMS = {"accl.training": _TRAIN, "accl.launch.worker": _TRAIN, "accl.training.apply": _APPLY}
_MEASUREMENTS = {
    "store": ("accl.bench.store", "measure"),
    "soak": ("accl.bench.soak.measure", "measure"),
    "tui": ("accl.bench.app", "measure_app"),
    "cli": ("accl.bench.commands", "measure_commands"),
    "statistics": ("accl.bench.statistics", "measure"),
    "train": ("accl.bench.train", "measure"),
}


class Popen(subprocess.Popen[Any]):
    """A process, where it would be one with a model or a worker another that takes no time."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        if list(args[1:3]) == ["-P", "-m"] and args[3] in _PROGRAMS:
            args = [args[0], "-I", "-S", "-c", _FILES + _PROGRAMS[args[3]], *args[3:]]
        super().__init__(args, *rest, **options)


def _measured(*_folder: object, **settings: object) -> list[Row]:
    assert settings
    return [row("what takes time", [1.0, 1.5, 2.5], "ms", target=3.0)]


def _compared(options: Any) -> Report:
    from accl.bench.train import candidates, settings

    names = [candidate.name for setting in settings(options) for candidate in candidates(options, setting)]
    return Report.create("train", {"profiles": options.profiles}, [row(name, [1.0, 2.0], "ms/step") for name in names])


def _opened(app: Any) -> None:
    print(f"The app is open: {type(app).__name__}")  # noqa: T201


def _served(_root: object, _opened: object, port: int, announce: Any) -> None:
    announce(f"The app is served on port {port}")


subprocess.Popen = Popen
typer._completion_shared._get_shell_name = typer.completion._get_shell_name = lambda: "bash"
words = sys.argv[1:]
if words[0] == "bench" and words[1] in _MEASUREMENTS:
    module, name = _MEASUREMENTS[words[1]]
    setattr(import_module(module), name, _compared if words[1] == "train" else _measured)
if words[0] == "tui" and not {"--once", "--picture"} & set(words):
    import tui.app
    import tui.web

    tui.app.AcclApp.run = _opened
    tui.web.serve = _served
    os.environ["TERM"] = "xterm-256color"
    for stream in (sys.stdin, sys.stdout):
        stream.isatty = lambda: True
