"""Runs whose every text tries to act on whatever shows it."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from command_line import Printed, run_command
from factory import finished_run

from accl.config import dump, load
from accl.config.resolution import Config
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
from accl.store.state import read_state, write_state
from accl.store.writer import Recorder
from accl.yamlfile import CONTROL

TITLE, CLIPBOARD, CLEAR = "\x1b]0;owned\x07", "\x1b]52;c;b3duZWQ=\x07", "\x1b[2J\x1b[H"
C1, BIDI, HIDDEN = "\x9b2J\x9d0;owned\x9c", "\u202egnp.exe\u2066", "\u200b\ufeff\u00ad\U000e0041"
BREAKS = "\r\x08\x7f\x85\u2028\ufffe"
MARKUP = "[bold red]rich[/bold red][link=http://evil]here[/link][@click=app.quit()]textual[/]:bomb:"
PAGE = "<script>html</script>![pic](http://evil)|`code`\\input{tex}%$&"
EVIL = "".join(("=", TITLE, CLIPBOARD, CLEAR, C1, BIDI, HIDDEN, BREAKS, MARKUP, PAGE))
EVIL_NAME = EVIL.replace("/", "∕").replace("\ufffe", "")[:80]  # what the name of a file may be
EVIL_VALUE = re.sub(r"[\r\n\t]", "", CONTROL.sub("", EVIL))  # what a configuration takes

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
COLOURS = re.compile(r"\x1b\[[\d;]*m")


def hostile_run(root: Path, recipe: str = "full", seed: int = 42) -> RunDir:
    """Make a finished run with hostile text in every field of every file, and in its folder's name."""
    tasks = [(f"{EVIL}{i}", f"{EVIL}sub{i % 2}", f"{EVIL}cat{i % 2}") for i in range(3)]
    run = finished_run(root, recipe, seed=seed, tasks=tasks, questions=30, trivial_baselines={EVIL: 0.25})
    recorder = Recorder(run.database)
    for step in (1, 2):
        recorder.metrics(step, 0.1, 1.0, {EVIL: 1.0, f"train/{EVIL}": 2.0})
    recorder.curriculum(200, EVIL, [0.2, 0.3, 0.5], [1, 2, 3])
    recorder.confusion(200, EVIL, np.eye(3).ravel().tolist(), [9] * 9)
    recorder.evaluation(200, EVIL, {EVIL: 0.5})
    recorder.task_evaluations([(200, EVIL, task, 9, 5) for task in range(3)])
    for level in (EVIL, "warning"):
        recorder.event(1.0, level, EVIL, f"{EVIL}\n{EVIL}")
    recorder.meta({EVIL: EVIL})
    for split in ("test", EVIL):
        recorder.predictions([(split, f"{EVIL}{i}", 0, 0, i, [0.3, 0.7, 0.0, 0.0]) for i in (0, 1)])
    recorder.questions([(f"{EVIL}{i}", 0, EVIL, [EVIL] * 4, 0, [1, 2]) for i in (0, 1)])
    recorder.close()
    config = load(run.config).model_dump()
    config |= {"recipe": EVIL_VALUE, "profile": EVIL_VALUE}
    config["data"] |= {"path": EVIL_VALUE, "revision": EVIL_VALUE}
    config["model"] |= {"name": EVIL_VALUE, "revision": EVIL_VALUE}
    run.config.write_text(dump(Config.model_validate(config)), encoding="utf-8")
    provenance = run.read_json(run.provenance)
    run.write_json(run.provenance, {**provenance, "command": [EVIL], EVIL: {EVIL: EVIL}, "device": EVIL})
    run.write_json(run.labels, {"tags": [EVIL], "note": EVIL})
    state = read_state(run)
    latest = {**state.latest, EVIL: 1.0}
    texts = dict.fromkeys(("reason", "phase", "host", "interrupted_by"), EVIL)
    texts |= dict.fromkeys(("checkpoint_last", "checkpoint_best"), EVIL_NAME)
    write_state(run, state.changed(latest=latest, **texts))
    (run.checkpoints / EVIL_NAME).mkdir(parents=True)
    run.console.write_text(
        f"10%{EVIL}\n{EVIL}\rlast version\nFooError: {TITLE}{C1}", encoding="utf-8", errors="replace"
    )
    return RunDir(run.path.rename(root / f"{run.id}{EVIL_NAME}"))


def crash(run: RunDir) -> None:
    """Let the run look as if its process had gone in the middle, which shows the reason and the phase."""
    RunLock.acquire(run, TRAINING).release()
    _set_state(run, state="running", host=os.uname().nodename)


def abandon(run: RunDir) -> None:
    """Let the run look as if it were trained on another host, whose name is hostile."""
    run.lock.write_text(json.dumps({"host": EVIL, "pid": 7, "since": EVIL}), encoding="utf-8")
    _set_state(run, state="running", host=EVIL)


def _set_state(run: RunDir, **values: str) -> None:
    state = json.loads(run.state.read_text(encoding="utf-8"))
    run.write_json(run.state, {**state, "pid": 2**22 - 1, "pid_started": 1.0, "exit_code": None, **values})


def break_each(runs: Iterator[RunDir]) -> None:
    """Damage one file of each of five runs, so that the reason quotes what is in it."""
    run = next(runs)
    run.write_json(run.state, {"state": EVIL})
    run = next(runs)
    run.config.write_text(f"recipe: x\nprofile: x\ntrain.seed: {json.dumps(EVIL)}\n", encoding="utf-8")
    run = next(runs)
    run.config.write_text(f"{run.config.read_text(encoding='utf-8')}{json.dumps(EVIL)}: 1\n", encoding="utf-8")
    run = next(runs)
    run.provenance.write_text(EVIL, encoding="utf-8")
    run = next(runs)
    run.database.write_bytes(EVIL.encode())


def acting(text: str, colours: bool = False) -> set[str]:
    """Return the characters in a command's output that a terminal acts upon, line feeds apart.

    Args:
        colours: whether escapes that do nothing but colour are allowed.
    """
    text = COLOURS.sub("", text) if colours else text
    return {c for c in text if c != "\n" and (unicodedata.category(c) in INVISIBLE or c == "\ufffe")}


def run_each(commands: Sequence[Sequence[str]], **env: str) -> list[Printed]:
    """Run several commands, each in a process of its own."""
    return [run_command(*words, **env) for words in commands]
