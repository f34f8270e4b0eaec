"""Feed broken inputs to every reader there is, and count what was neither accepted nor refused in words."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accl.bench.fuzz import make_input, try_input
from accl.bench.runs import finished_run
from accl.data.folders import read_folder
from accl.errors import AcclError
from accl.store.columns import RunReader
from accl.store.rundir import RunDir, find_run
from accl.store.state import observe

LIMIT_S = 5.0
SUBJECTS = ("anatomy", "astronomy", "virology")
ODD = [
    b"\x00",
    b"\xff\xfe",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\x1b[2J",
    b"-1",
    b"1e999",
    b"null",
    b"{",
    b"[",
    b"&a *a",
    b"\xe2\x80\xae",
]


def feed(folder: Path, inputs: int, seed: int) -> Counter[str]:
    """Feed inputs in another process, which is replaced when one makes it hang or die.

    Returns:
        how many were ``accepted``, ``refused`` in words, ``crashed``, ``hung`` for 5 s, or ``dropped`` rows silently,
        and under ``examples: ...`` the first of each of the last three.
    """
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    done = 0
    while done < inputs:
        here, there = context.Pipe()
        worker = context.Process(target=_work, args=(folder, seed, done, inputs, there), daemon=True)
        worker.start()
        there.close()
        while done < inputs:
            try:
                outcome = here.recv() if here.poll(LIMIT_S if done else 60) else f"hung: input {done} of seed {seed}"
            except EOFError:
                outcome = f"crashed: input {done} of seed {seed} ended the process"
            counts[outcome] += 1
            done += 1
            if outcome.startswith(("hung", "crashed: input")):
                break
        worker.kill()
        worker.join()
    return counts


def _work(folder: Path, seed: int, first: int, end: int, answers: Any) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        template = finished_run(Path(temporary) / "runs", "full", 1, steps=5, questions=57)
        for number in range(first, end):
            generator = random.Random(f"{seed}/{number}")
            kind = generator.choice(list(KINDS))
            place = Path(temporary) / "input"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                answers.send(KINDS[kind](generator, place, template))
            except AcclError:
                answers.send("refused")
            except Exception as error:
                answers.send(f"crashed: {kind} {number} of seed {seed}: {type(error).__name__}: {error}"[:300])


def _mutated(generator: random.Random, content: bytes) -> bytes:
    """Return content with a few cuts, repeats, flipped bits and odd bytes."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) + 1)
        match generator.randrange(5):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = generator.choice(ODD)
            case 2 if data:
                data[at % len(data)] ^= 1 << generator.randrange(8)
            case 3:
                del data[at : at + generator.randint(1, 50)]
            case _:
                data[at:at] = data[at : at + generator.randint(1, 50)] * generator.randint(1, 3)
    return bytes(data)


def _config(generator: random.Random, _place: Path, _run: RunDir) -> str:
    return try_input(make_input(generator)[1])


def _csv(generator: random.Random, place: Path, _run: RunDir) -> str:
    (place / "test").mkdir()
    for subject in SUBJECTS:
        text = io.StringIO()
        csv.writer(text).writerows([f"Question {i}, {subject}?", "a", "b", "c", "d", "ABCD"[i % 4]] for i in range(8))
        content = text.getvalue().encode()
        content = _mutated(generator, content) if subject == SUBJECTS[0] else content
        (place / "test" / f"{subject}_test.csv").write_bytes(content)
    corpus = read_folder(place)
    records = sum(
        bool(record)
        for path in (place / "test").iterdir()
        for record in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    )
    return "accepted" if len(corpus.parts["test"]) == records else f"dropped: {records} rows"


def _json(name: str) -> Callable[[random.Random, Path, RunDir], str]:
    def read(generator: random.Random, place: Path, run: RunDir) -> str:
        copy = RunDir(place / run.id)
        shutil.copytree(run.path, copy.path)
        path = copy.path / name
        content = json.loads(path.read_text())
        if generator.random() < 0.5:
            key = generator.choice(list(content))
            content[key] = generator.choice(
                [None, "x", [], {}, -1, 1e308, float("nan"), True, 10**400, "\x1b[2J", [[[]]]]
            )
            path.write_text(json.dumps(content))
        else:
            path.write_bytes(_mutated(generator, path.read_bytes()))
        observe(copy)
        return "accepted"

    return read


def _database(generator: random.Random, place: Path, run: RunDir) -> str:
    copy = RunDir(place / run.id)
    shutil.copytree(run.path, copy.path)
    path = copy.database if generator.random() < 0.8 else copy.database.with_name("run.spool.jsonl")
    content = path.read_bytes() if path.exists() else b'["metrics", [0, 1, 0.1, 0.1, "train/loss", 1.0]]\n'
    path.write_bytes(_mutated(generator, content))
    RunReader(copy).refresh()
    return "accepted"


def _name(generator: random.Random, _place: Path, run: RunDir) -> str:
    letters = [*"abc-_./~ \x1b[]'\"%*?", "..", "\u202e", "s3://", "exp:", run.id[:9], "last", "\x00", "é"]
    find_run(run.path.parent, "".join(generator.choices(letters, k=generator.randint(0, 8))))
    return "accepted"


KINDS: dict[str, Callable[[random.Random, Path, RunDir], str]] = {
    "config": _config,
    "csv": _csv,
    "state": _json("state.json"),
    "provenance": _json("provenance.json"),
    "database": _database,
    "name": _name,
}


def examples(counts: Counter[str]) -> Iterator[str]:
    """Yield the outcomes that should not be."""
    yield from (outcome for outcome in counts if outcome not in ("accepted", "refused"))
