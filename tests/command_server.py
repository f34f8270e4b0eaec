"""Runs commands for `command_line.py`: each in a fork of this process, which has imported what they need.

A line of standard input is a request, a line of standard output its answer, both in JSON.

Where a request says so, the trainers that its command starts are forks as well. This process has imported what they
need and made the built-in questions then, which is two thirds of what a short run computes. Only these differ from
started ones: forks share a hash seed, show the variables of this process in /proc, and find the command's modules
loaded.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from accl.data.sources import synthetic
from accl.store import instances

COMMANDS = (
    *("accl.cli.compare_output", "accl.cli.config", "accl.cli.control", "accl.cli.labels", "accl.cli.logs"),
    *("accl.cli.progress", "accl.cli.prune", "accl.cli.runs", "accl.cli.show", "accl.cli.train", "accl.cli.trash"),
    *("accl.analysis.claim_runs", "accl.config.explain", "accl.launch.preflight", "accl.store.columns"),
)
# What takes long to import, and only these commands need.
LATER = {"figure": ["matplotlib.figure", "matplotlib.backends.backend_pdf"], "tui": ["tui.app", "tui.snapshot"]}

# The programs that may be forks; what they need are the modules below, but not the program's own, which is executed.
PROGRAMS = ("accl.training", "accl.training.apply", "accl.launch.worker")
TRAINING = (
    *("accl.training.ask", "accl.training.backends.cpu", "accl.training.backends.packed_cpu", "accl.training.export"),
    *("accl.training.load", "accl.training.loop", "accl.training.other_questions", "accl.training.setup"),
    *("accl.training.start", "accl.training.testing", "accl.training.together"),
    "transformers.models.deberta_v2.modeling_deberta_v2",
)
# Variables that are read when they are needed. All others may be read while modules load, where a fork cannot differ.
READ_LATE = ("ACCL_", "COLUMNS", "GIT_", "GOMP_", "PYTEST_", "PYTHONFAULTHANDLER", "PYTHONUNBUFFERED")
# What training in the tests' own process leaves there, and every program sets for itself.
LEFT_BEHIND = ("CUBLAS_", "DISABLE_SAFETENSORS_CONVERSION", "TOKENIZERS_PARALLELISM", "TORCHINDUCTOR_")
HOME = str(Path(__file__).resolve().parents[1])

inherited: list[object] = []


def read_early(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables that a program may read while it starts, and the folders of PYTHONPATH as a set."""
    others = (*READ_LATE, *LEFT_BEHIND)
    early: dict[str, Any] = {name: value for name, value in environment.items() if not name.startswith(others)}
    return early | {"PYTHONPATH": {HOME, *early.get("PYTHONPATH", "").split(os.pathsep)} - {""}}


EARLY = read_early(os.environ)


class ForkingPopen(subprocess.Popen[Any]):
    """Makes a process of a program by a fork of this one where that is the same, and starts it otherwise."""

    def __init__(self, command: Any, **options: Any) -> None:
        if _names_program(command) and read_early(options.get("env") or os.environ) == EARLY:
            environment, kept = dict(options.get("env") or os.environ), options.get("pass_fds", ())
            options["preexec_fn"] = partial(become, list(map(str, command)), environment, kept)
        super().__init__(command, **options)


def _names_program(command: Any) -> bool:
    return isinstance(command, list) and command[:3] == [sys.executable, "-P", "-m"] and command[3] in PROGRAMS


def become(command: Sequence[str], environment: Mapping[str, str], kept: Collection[int]) -> NoReturn:
    """Go on as the program that a command would start, in the child of a fork.

    Args:
        command: words of the form ``python -P -m MODULE ...``.
        kept: descriptors that the program inherits beside its standard streams.
    """
    show_as(command)
    # Among them is that by whose end `Popen` knows that the program has begun.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    # Instances of DuckDB that the command used: out of reach, and never closed, since they do not outlive a fork.
    inherited.extend(instances._idle)
    instances._idle.clear()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [folder for folder in sys.path if folder]
    sys.argv = ["-m", *command[4:]]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)
        for number in (1, 2)
    )
    faulthandler.enable(2)
    gc.enable()
    code: object = 0
    try:
        runpy.run_module(command[3], run_name="__main__", alter_sys=True)
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else int(code is not None))


def show_as(command: Sequence[str]) -> None:
    """Let /proc show these words as those of this process, with slashes before them to fill the room."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = map(int, fields[45:47])  # arg_start and arg_end, fields 48 and 49 of 52
    words = b"\0".join(map(os.fsencode, command)) + b"\0"
    assert len(words) <= end - begin, "there is no room for so many words"
    ctypes.memmove(begin, words.rjust(end - begin, b"/"), end - begin)


def run_command(request: Sequence[Any], outputs: Sequence[Any]) -> NoReturn:
    """Run the command of a request in the child of a fork, with its output in these files."""
    from accl.cli.main import main

    words, folder, environment, before, typed, forks = request
    with tempfile.TemporaryFile() as answers:
        answers.write(typed.encode())
        answers.seek(0)
        for number, file in enumerate((answers, *outputs)):
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, code = ["accl", *words], 0
    if forks:
        subprocess.Popen = ForkingPopen
    try:
        if before:
            exec(compile(Path(before).read_text(), before, "exec"), {"__name__": "before"})
        main()
    except SystemExit as left:
        code = left.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the end of the interpreter would touch, and so copy, every page of memory


def serve() -> None:
    """Answer requests until there are no more."""
    for name in COMMANDS:
        import_module(name)
    synthetic.generate = cache(synthetic.generate)
    later, trains = dict(LATER), False
    for line in sys.stdin:
        request = json.loads(line)
        for name in later.pop(request[0][0], ()) if request[0] else ():
            with suppress(ImportError):
                import_module(name)
        if request[-1] and not trains:
            trains = True
            for name in TRAINING:
                import_module(name)
            synthetic.generate()
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            if (child := os.fork()) == 0:
                run_command(request, [stdout, stderr])
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer: list[object] = [code]
            for output in (stdout, stderr):
                output.seek(0)
                answer.append(output.read().decode("latin-1"))
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, "")
    serve()
