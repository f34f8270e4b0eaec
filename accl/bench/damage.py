"""Ways in which a run folder can be damaged, as data: for tests, and for the benchmark that injects them.

Every file of a run is taken away, emptied, cut, overwritten, replaced by what is no file, or filled with values of
other types. A `Damage` is applied to a copy of a whole run, which may share its files by hard links: no damage writes
into a file, it puts another in its place.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from accl.store.state import RunState
from accl.store.waiting import Waiting

SPARSE_BYTES = 8 * 2**30
# The folder of a checkpoint that a damage makes where the run has none.
STEP = "checkpoints/step-00000001"
FILES = (
    "state.json",
    "config.yaml",
    "provenance.json",
    "labels.json",
    "experiment.json",
    "queue.json",
    "run.duckdb",
    "run.duckdb.wal",
    "run.spool.jsonl",
    "run.lock",
    "console.log",
    "checkpoints",
    STEP,
    f"{STEP}/state.json",
    f"{STEP}/model.safetensors",
    f"{STEP}/optimizer.safetensors",
)
_SAMPLE = b'["events", [0, 0.0, "info", "sample", "a line of a file that the run did not have"]]\n'
_GARBAGE = bytes((7 * i * i + 13 * i + 5) % 256 for i in range(4096))

_DEEP: Any = []
for _ in range(500):
    _DEEP = [_DEEP]
WRONG_VALUES: dict[str, Any] = {
    "null": None,
    "string": "3",
    "words": "not a number",
    "list": [1, 2],
    "object": {"a": 1},
    "object of strings": {"train/loss": "1.5"},
    "object of huge integers": {"train/loss": 10**400},
    "huge integer": 10**400,
    "large integer": 2**63,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "negative": -1,
    "fraction": 0.5,
    "1e300": 1e300,
    "true": True,
    "deep nesting": _DEEP,
    "surrogate": "\ud800",
    "escapes": "\x1b]0;title\x07\x1b[2J\u202e",
    "path": "../../../etc",
}
# Whole contents, by what is wrong with them.
WRONG_JSON: dict[str, bytes] = {
    "null": b"null",
    "array": b"[1, 2, 3]",
    "number": b"3",
    "empty object": b"{}",
    "deep nesting": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "duplicate keys": b'{"state": "running", "state": "finished", "tags": [], "tags": []}',
    "integer of 5,000 digits": b'{"step": ' + b"9" * 5000 + b"}",
    "byte order mark": b'\xef\xbb\xbf{"state": "finished"}',
    "UTF-16": '{"state": "finished"}'.encode("utf-16"),
    "NUL bytes": bytes(4096),
    "later state": b'{"state": "dreaming"}',
    "unknown fields": b'{"state": "finished", "colour": "blue"}',
}
WRONG_YAML: dict[str, bytes] = {
    "null": b"null\n",
    "list": b"- recipe\n- profile\n",
    "text": b"recipe\n",
    "null sections": b"recipe: full\nprofile: demo\ntrain:\n",
    "list of recipes": b"recipe: [a, b]\nprofile: {a: b}\ntrain: {seed: [1]}\n",
    "words for a seed": b"recipe: full\nprofile: demo\ntrain:\n  seed: forty-two\n",
    "huge seed": b"recipe: full\nprofile: demo\ntrain:\n  seed: " + b"9" * 5000 + b"\n",
    "negative seed": b"recipe: full\nprofile: demo\ntrain:\n  seed: -1\n",
    "deep flow": b"recipe: full\nprofile: demo\ntrain: " + b"[" * 200_000 + b"\n",
    "deep blocks": b"recipe: full\nprofile: demo\ntrain:\n  " + b"- " * 200_000 + b"\n",
    "deep keys": b"recipe: full\nprofile: demo\ntrain:\n  " + b"? " * 200_000 + b"\n",
    "alias of itself": b"recipe: full\nprofile: demo\ntrain: &a\n  seed: *a\n",
    "bomb of aliases": b"recipe: full\nprofile: demo\ntrain:\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"  a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 20)),
    "duplicate keys": b"recipe: full\nrecipe: baseline\nprofile: demo\ntrain:\n  seed: 1\n  seed: 2\n",
    "python object": b"recipe: !!python/object/apply:os.system ['true']\nprofile: demo\ntrain:\n  seed: 1\n",
    "UTF-16": "recipe: full\nprofile: demo\ntrain:\n  seed: 1\n".encode("utf-16"),
    "NUL bytes": bytes(4096),
    "escapes": b'recipe: "\\e]0;title\\a"\nprofile: "[red]"\ntrain:\n  seed: 1\n',
}


@dataclass(frozen=True)
class Damage:
    """A way to damage a run folder.

    Attributes:
        name: words that tell it apart, such as ``state.json: step is null``.
        apply: function that damages the folder of a run in place.
    """

    name: str
    apply: Callable[[Path], None]


def damages() -> list[Damage]:
    """Return every damage, grouped by the file that it hits."""
    return [*_folders(), *_files(), *_contents()]


def _folders() -> Iterator[Damage]:
    for kind, change in _REPLACED.items():
        yield Damage(f"run folder: {kind}", change)
    yield Damage("run folder: no permission", partial(os.chmod, mode=0))
    yield Damage("run folder: a link to a folder elsewhere", _link_elsewhere)


def _files() -> Iterator[Damage]:
    for name in FILES:
        for kind, change in _CHANGES.items():
            yield Damage(f"{name}: {kind}", partial(_change, name=name, change=change))


def _contents() -> Iterator[Damage]:
    fields = {
        "state.json": [field.name for field in dataclasses.fields(RunState)],
        "provenance.json": ["created", "command", "git", "data", "device", "accl"],
        "labels.json": ["name", "tags", "note"],
        "experiment.json": ["name"],
        "queue.json": [field.name for field in dataclasses.fields(Waiting)],
    }
    for name, keys in fields.items():
        for kind, content in WRONG_JSON.items():
            yield Damage(f"{name}: {kind}", partial(_overwrite, name=name, content=content))
        for key in keys:
            for kind, value in WRONG_VALUES.items():
                yield Damage(f"{name}: {key} is {kind}", partial(_set_json, name=name, key=key, value=value))
    for kind, content in WRONG_YAML.items():
        yield Damage(f"config.yaml: {kind}", partial(_overwrite, name="config.yaml", content=content))
    for key in ("recipe", "profile", "train", "data", "curriculum"):
        for kind in ("null", "list", "object", "huge integer", "NaN", "negative", "true"):
            yield Damage(f"config.yaml: {key} is {kind}", partial(_set_yaml, key=key, value=WRONG_VALUES[kind]))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace_by(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else at a path."""
    _remove(path)
    make(path)


def _bind(path: Path) -> None:
    """Make a socket. Its address may have 100 bytes only, so it is named from within its folder."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    finally:
        os.close(descriptor)


def _link_elsewhere(path: Path) -> None:
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _change(run: Path, name: str, change: Callable[[Path], None]) -> None:
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    change(path)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else _SAMPLE


def _write(path: Path, content: bytes) -> None:
    _remove(path)
    path.write_bytes(content)


def _make_sparse(path: Path) -> None:
    content = _content(path)
    _write(path, content)
    os.truncate(path, SPARSE_BYTES)


def _link_to_moved(path: Path) -> None:
    moved = path.with_name(f"{path.name}.moved")
    moved.write_bytes(_content(path))
    _remove(path)
    path.symlink_to(moved)


def _forbid(path: Path) -> None:
    _write(path, _content(path))
    path.chmod(0)


_REPLACED: dict[str, Callable[[Path], None]] = {
    "missing": _remove,
    "empty": partial(_replace_by, make=Path.touch),
    "a folder without files": partial(_replace_by, make=Path.mkdir),
    "a FIFO": partial(_replace_by, make=os.mkfifo),
    "a socket": partial(_replace_by, make=_bind),
    "a dangling link": partial(_replace_by, make=lambda path: path.symlink_to(path.with_name("gone"))),
    "a link loop": partial(_replace_by, make=lambda path: path.symlink_to(path)),
}
_CHANGES: dict[str, Callable[[Path], None]] = {
    **_REPLACED,
    "a link to a file": _link_to_moved,
    "a link to an endless device": partial(_replace_by, make=lambda path: path.symlink_to("/dev/zero")),
    "no permission": _forbid,
    "truncated to half": lambda path: _write(path, _content(path)[: len(_content(path)) // 2]),
    "truncated by a byte": lambda path: _write(path, _content(path)[:-1]),
    "one byte": lambda path: _write(path, b"\x00"),
    "garbage": lambda path: _write(path, _GARBAGE),
    "garbage in its second half": lambda path: _write(path, _content(path)[: len(_content(path)) // 2] + _GARBAGE),
    "zeros of the same size": lambda path: _write(path, bytes(len(_content(path)))),
    "doubled": lambda path: _write(path, _content(path) * 2),
    "of many GB": _make_sparse,
}


def _overwrite(run: Path, name: str, content: bytes) -> None:
    _write(run / name, content)


def _set_json(run: Path, name: str, key: str, value: Any) -> None:
    path = run / name
    content = json.loads(path.read_bytes()) if path.is_file() else {}
    _write(path, json.dumps({**content, key: value}).encode())


def _set_yaml(run: Path, key: str, value: Any) -> None:
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_bytes())
    _write(path, yaml.safe_dump({**content, key: value}).encode())
