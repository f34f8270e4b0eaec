"""Checkpoints are loaded whole or not at all, and saving and pruning touch nothing but our own files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from spoil import flip, put_a_folder, put_a_link, put_a_pipe
from torch import Tensor, nn

from accl.errors import DamagedError
from accl.store import manifest
from accl.store.manifest import MANIFEST, MODEL, OPTIMIZER, PROGRESS
from accl.training import checkpoint
from accl.training.checkpoint import Progress, Target
from accl.training.tensorfile import write_tensors

TASKS = 3
STATE = Progress(12, [4, 4, 4, 0], [0.5, 0.25, 0.25], 9.5, 8.0, 0.25, 8)


class Net(nn.Module):
    """A model with an embedding, of whose rows only some are used, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(6, 2)
        self.layer = nn.Linear(2, 3)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count_K", torch.zeros(TASKS))
        self.register_buffer("seen_K", torch.zeros(TASKS, dtype=torch.bool))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))


USED = torch.tensor([1, 4])


def moments(model: nn.Module) -> dict[str, Tensor]:
    state = {"rows.words.weight": USED}
    for name, parameter in model.named_parameters():
        shape = (2, 2) if name == "words.weight" else parameter.shape
        state |= {f"step.{name}": torch.tensor(12.0)}
        state |= {f"{kind}.{name}": torch.randn(shape) for kind in ("exp_avg", "exp_avg_sq")}
    return state


def write(root: Path, step: int = 12, best: int = 8) -> tuple[Path, Net]:
    """Save a checkpoint, and return its folder and model."""
    model, counts = Net(), Counts()
    counts.load_state_dict(
        {"count_K": torch.rand(TASKS), "seen_K": torch.ones(TASKS).bool(), "updates": torch.ones(())}
    )
    files = checkpoint.files_of(model, moments(model), {"counts": counts})
    return root / checkpoint.save(root, replace(STATE, step=step, best_step=best), files), model


def target(run: str = "") -> Target:
    return Target(Net(), {"counts": Counts()}, USED, len(STATE.sampler), TASKS, run)


def assert_untouched(into: Target, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in into.model.state_dict().items())
    assert not any(bool(value.any()) for value in into.buffers["counts"].state_dict().values())


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    folder, model = write(tmp_path)
    into = target()
    progress, state = checkpoint.load(folder, into)
    assert progress == STATE
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in into.model.state_dict().items())
    stored = load_file(folder / OPTIMIZER)
    assert torch.equal(into.buffers["counts"].state_dict()["count_K"], stored["buffer.counts.count_K"])
    assert torch.equal(state["exp_avg.words.weight"][USED], stored["exp_avg.words.weight"])
    assert state["exp_avg.words.weight"].shape == (6, 2)
    assert torch.equal(state["exp_avg.layer.weight"], stored["exp_avg.layer.weight"])
    alone = Net()
    checkpoint.load_model(folder, alone)
    assert torch.equal(alone.layer.weight, model.layer.weight)


def test_tensor_files_are_what_safetensors_reads_whatever_the_type(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.tensor([True, False, True]),
        "wide": torch.arange(3, dtype=torch.float64),
        "half": torch.randn(3).bfloat16(),
        "transposed": torch.randn(4, 3).t(),
        "none": torch.empty(0, 3),
        "one": torch.tensor(7),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    entry = write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)
    assert entry.size == (tmp_path / "x.safetensors").stat().st_size


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "first byte flipped": lambda path: flip(path, 0),
    "last byte flipped": lambda path: flip(path, 0.9999999),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "missing": Path.unlink,
    "garbage": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "folder": put_a_folder,
    "pipe": put_a_pipe,
    "link": put_a_link,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, PROGRESS, MANIFEST])
def test_a_damaged_file_is_named_and_nothing_is_loaded(tmp_path: Path, name: str, damage: str) -> None:
    folder, _ = write(tmp_path)
    DAMAGES[damage](folder / name)
    into = target()
    before = {key: value.clone() for key, value in into.model.state_dict().items()}
    with pytest.raises(DamagedError) as raised:
        checkpoint.load(folder, into)
    assert str(folder) in raised.value.what
    if not (name == MANIFEST and "flipped" in damage):  # a wrong checksum shows in the file that it is of
        assert str(folder / name) in raised.value.what
    assert_untouched(into, before)


@pytest.mark.parametrize("damage", ["flipped", "missing", "truncated"])
def test_weights_to_be_tested_are_verified_too(tmp_path: Path, damage: str) -> None:
    folder, _ = write(tmp_path)
    DAMAGES[damage](folder / MODEL)
    model = Net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(DamagedError, match=MODEL):
        checkpoint.load_model(folder, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_alone_can_be_tested_but_not_gone_on_from(tmp_path: Path) -> None:
    folder, model = write(tmp_path)
    manifest.remove(folder, (OPTIMIZER,))
    assert sorted(os.listdir(folder)) == [MANIFEST, MODEL, PROGRESS]
    alone = Net()
    checkpoint.load_model(folder, alone)
    assert torch.equal(alone.layer.weight, model.layer.weight)
    with pytest.raises(DamagedError, match=r"optimizer\.safetensors is missing"):
        checkpoint.load(folder, target())


# Written by somebody else, with a manifest that fits: checksums say nothing, and only the content can.
WRONG_STATES: dict[str, dict[str, Any]] = {
    "step is a text": {"step": "12"},
    "step is true": {"step": True},
    "step of another folder": {"step": 11},
    "sampler of another length": {"sampler": [4, 4, 4]},
    "sampler with a fraction": {"sampler": [4, 4, 4, 0.5]},
    "sampler below zero": {"sampler": [4, 4, -4, 0]},
    "sampler is null": {"sampler": None},
    "weights of another length": {"weights": [0.5, 0.5]},
    "weights of length one": {"weights": [1.0]},
    "weights of nothing": {"weights": [0.0, 0.0, 0.0]},
    "weights are not numbers": {"weights": [0.5, float("nan"), 0.5]},
    "weights are texts": {"weights": ["0.5", "0.25", "0.25"]},
    "clock is null": {"seconds": None},
    "clock runs backwards": {"training_seconds": -1},
    "score is infinite": {"best_score": float("inf")},
    "best of the future": {"best_step": 13},
    "best is a list": {"best_step": [8]},
    "unknown key": {"colour": "red"},
    "run is a number": {"run": 5},
    "of another run": {"run": "theirs"},
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_a_state_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path: Path, wrong: str) -> None:
    folder, _ = write(tmp_path)
    content = json.dumps({"format": 2, **asdict(STATE), **WRONG_STATES[wrong]})
    rewrite(folder, PROGRESS, lambda path: path.write_text(content))
    into = target("ours")
    before = {key: value.clone() for key, value in into.model.state_dict().items()}
    with pytest.raises(DamagedError) as raised:
        checkpoint.load(folder, into)
    assert str(folder) in raised.value.what
    assert_untouched(into, before)


@pytest.mark.parametrize("content", ["[]", "3", "{", "null", '{"step": 12}', "[" * 100_000, '{"a": NaN}'])
@pytest.mark.parametrize("name", [PROGRESS, MANIFEST])
def test_json_of_any_kind_is_refused(tmp_path: Path, name: str, content: str) -> None:
    folder, _ = write(tmp_path)
    if name == PROGRESS:
        rewrite(folder, PROGRESS, lambda path: path.write_text(content))
    else:
        (folder / name).write_text(content)
    with pytest.raises(DamagedError, match=name):
        checkpoint.load(folder, target())


@pytest.mark.parametrize(
    "change",
    [
        {"files": {MODEL: {"size": 1, "sha256": ""}, PROGRESS: {"size": "1", "sha256": ""}}},
        {"files": {MODEL: {"size": 1, "sha256": ""}, PROGRESS: {"size": 1, "sha256": ""}, "../x": None}},
        {"files": {MODEL: {"size": 1, "sha256": ""}, PROGRESS: {"size": 1, "sha256": "", "mode": 7}}},
        {"files": {}},
        {"files": []},
        {"format": 2},
        {"step": 13},
        {"step": "12"},
        {"step": None},
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder, _ = write(tmp_path)
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | change))
    with pytest.raises(DamagedError, match=r"manifest.json is damaged"):
        checkpoint.load(folder, target())
    assert not manifest.is_ours(folder)


def without(key: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(key)


def with_tensor(key: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({key: value})


WRONG_TENSORS: dict[str, tuple[str, Callable[[dict[str, Tensor]], None]]] = {
    "weights: missing": (MODEL, without("layer.bias")),
    "weights: unknown": (MODEL, with_tensor("layer.scale", torch.ones(3))),
    "weights: shape": (MODEL, with_tensor("layer.bias", torch.ones(4))),
    "weights: broadcastable": (MODEL, with_tensor("layer.bias", torch.ones(1))),
    "weights: type": (MODEL, with_tensor("layer.bias", torch.ones(3).half())),
    "buffer: missing": (OPTIMIZER, without("buffer.counts.count_K")),
    "buffer: unknown": (OPTIMIZER, with_tensor("buffer.bank.z", torch.ones(3))),
    "buffer: shape": (OPTIMIZER, with_tensor("buffer.counts.count_K", torch.ones(2))),
    "moments: missing": (OPTIMIZER, without("exp_avg_sq.layer.bias")),
    "moments: no step": (OPTIMIZER, without("step.layer.bias")),
    "moments: unknown": (OPTIMIZER, with_tensor("exp_avg.layer.scale", torch.ones(3))),
    "moments: unknown kind": (OPTIMIZER, with_tensor("velocity.layer.bias", torch.ones(3))),
    "moments: shape": (OPTIMIZER, with_tensor("exp_avg.layer.weight", torch.ones(3, 3))),
    "moments: type": (OPTIMIZER, with_tensor("exp_avg.layer.bias", torch.ones(3).double())),
    "moments: step is a row": (OPTIMIZER, with_tensor("step.layer.bias", torch.ones(3))),
    "rows: too few": (OPTIMIZER, with_tensor("rows.words.weight", torch.tensor([1]))),
    "rows: beyond": (OPTIMIZER, with_tensor("rows.words.weight", torch.tensor([1, 6]))),
    "rows: below": (OPTIMIZER, with_tensor("rows.words.weight", torch.tensor([-1, 1]))),
    "rows: twice": (OPTIMIZER, with_tensor("rows.words.weight", torch.tensor([1, 1]))),
    "rows: fractions": (OPTIMIZER, with_tensor("rows.words.weight", torch.tensor([1.0, 2.0]))),
    "nothing": (
        OPTIMIZER,
        lambda tensors: [tensors.pop(k) for k in list(tensors) if not k.startswith("buffer")] and None,
    ),
}


def rewrite(folder: Path, name: str, change: Callable[[Path], Any]) -> None:
    """Change a file, and write the manifest anew."""
    change(folder / name)
    entries = {}
    for file in manifest.FILES:
        content = (folder / file).read_bytes()
        (folder / file).unlink()
        entries[file] = manifest_entry(folder / file, content)
    (folder / MANIFEST).write_bytes(manifest.render(STATE.step, entries))


def manifest_entry(path: Path, content: bytes) -> manifest.Entry:
    from accl.training.tensorfile import write_synced

    return write_synced(path, [content])


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
@pytest.mark.parametrize("checksums", [True, False])
def test_tensors_that_do_not_fit_are_refused_before_anything_is_loaded(
    tmp_path: Path, wrong: str, checksums: bool
) -> None:
    folder, _ = write(tmp_path)
    name, change = WRONG_TENSORS[wrong]
    tensors = {key: value.clone() for key, value in load_file(folder / name).items()}
    change(tensors)
    rewrite(folder, name, lambda path: save_file(tensors, path))
    if not checksums:
        forget_checksums(folder)
    into = target()
    before = {key: value.clone() for key, value in into.model.state_dict().items()}
    with pytest.raises(DamagedError, match=f"{name} does not fit"):
        checkpoint.load(folder, into)
    assert_untouched(into, before)


def forget_checksums(folder: Path) -> None:
    """Make a checkpoint as accl 0.1 wrote it."""
    (folder / MANIFEST).unlink()
    content = json.loads((folder / PROGRESS).read_text())
    del content["format"], content["run"]
    (folder / PROGRESS).write_text(json.dumps(content))


def test_checkpoints_without_checksums_load_as_before(tmp_path: Path) -> None:
    folder, model = write(tmp_path)
    forget_checksums(folder)
    into = target("ours")
    assert checkpoint.load(folder, into)[0] == STATE
    checkpoint.load_model(folder, into.model)
    assert torch.equal(into.model.state_dict()["layer.weight"], model.layer.weight)


def test_old_rows_are_those_that_the_questions_use(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    tensors = {key: value.clone() for key, value in load_file(folder / OPTIMIZER).items()}
    del tensors["rows.words.weight"]
    rewrite(folder, OPTIMIZER, lambda path: save_file(tensors, path))
    _, state = checkpoint.load(folder, target())
    assert torch.equal(state["exp_avg.words.weight"][USED], tensors["exp_avg.words.weight"])


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, PROGRESS])
def test_old_checkpoints_that_lack_a_file_are_refused(tmp_path: Path, name: str) -> None:
    folder, _ = write(tmp_path)
    forget_checksums(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        checkpoint.load(folder, target())


def test_candidates_are_the_newest_first_and_the_known_last_even_when_it_is_gone(tmp_path: Path) -> None:
    assert checkpoint.candidates(tmp_path / "none", "") == []
    for step in (4, 8, 12):
        write(tmp_path, step, 4)
    manifest.remove(tmp_path / "step-00000004", (OPTIMIZER,))
    (tmp_path / "notes").mkdir()
    names = [folder.name for folder in checkpoint.candidates(tmp_path, "step-00000010")]
    assert names == ["step-00000012", "step-00000010", "step-00000008"]


# Pruning -----------------------------------------------------------------------------------------


def test_two_whole_checkpoints_and_the_weights_of_their_best_are_kept(tmp_path: Path) -> None:
    for step, best in ((2, 2), (4, 4), (6, 4), (8, 4), (10, 10), (12, 10)):
        write(tmp_path, step, best)
    checkpoint.prune(tmp_path, "step-00000012")
    assert {path.name: (path / OPTIMIZER).exists() for path in tmp_path.iterdir()} == {
        "step-00000012": True,
        "step-00000010": True,
    }
    # Another life, from step 8 on: its best is kept for whoever falls back on it.
    for step, best in ((4, 4), (8, 4)):
        write(tmp_path, step, best)
    checkpoint.prune(tmp_path, "step-00000010")
    assert {path.name: (path / OPTIMIZER).exists() for path in tmp_path.iterdir()} == {
        "step-00000010": True,
        "step-00000008": True,
        "step-00000004": False,
    }


def test_pruning_and_saving_leave_alone_what_is_not_ours(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    for step in (2, 4, 6):
        write(root, step, 2)
    copy, notes, other = root / "my-copy", root / "step-00000002" / "notes.txt", root / "step-00000099"
    subprocess.run(["cp", "-r", root / "step-00000004", copy], check=True)
    subprocess.run(["cp", "-r", root / "step-00000004", other], check=True)  # named as ours, but not by its manifest
    notes.write_text("the good one")
    (root / ".DS_Store").write_bytes(b"\0")
    (root / "step-00000003").mkdir()
    (root / "step-00000003" / MODEL).write_text("of another program")
    (root / "step-00000001").write_text("a file")
    (root / "step-00000007").mkdir()  # as a kill between two removals leaves it
    (root / "step-000000055").mkdir()
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "step-00000004" not in path.parts}
    for step in (8, 10):
        write(root, step, 8)
        assert checkpoint.prune(root, f"step-{step:08d}") == []
    ours = {root / "step-00000002" / name for name in (MODEL, OPTIMIZER, PROGRESS, MANIFEST)}
    ours |= {root / "step-00000006" / name for name in (MODEL, OPTIMIZER, PROGRESS, MANIFEST)}
    assert {path for path in kept if not path.exists()} == ours
    assert all(path.read_bytes() == content for path, content in kept.items() if path not in ours)
    assert not (root / "step-00000004").exists()
    assert not (root / "step-00000007").exists()
    assert (root / "step-000000055").is_dir()


def test_a_hostile_manifest_names_no_file_to_remove(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    folder, _ = write(tmp_path / "checkpoints", 2, 2)
    content = json.loads((folder / MANIFEST).read_text())
    for name in ("../../victim", str(victim), "notes.txt", ".", ""):
        (folder / MANIFEST).write_text(
            json.dumps(content | {"files": content["files"] | {name: content["files"][MODEL]}})
        )
        (folder / "notes.txt").write_text("keep")
        manifest.remove(folder)
        assert victim.exists()
        assert (folder / "notes.txt").exists()


def test_nothing_is_removed_through_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for step in (2, 4, 6, 8):
        write(elsewhere, step, 2)
    (tmp_path / "checkpoints").symlink_to(elsewhere)
    root = tmp_path / "checkpoints"
    before = sorted(elsewhere.rglob("*"))
    assert checkpoint.prune(root, "step-00000008") == [root]
    assert sorted(elsewhere.rglob("*")) == before
    # A single folder, and saving over it.
    own = tmp_path / "own"
    for step in (6, 8):
        write(own, step, 6)
    (own / "step-00000002").symlink_to(elsewhere / "step-00000002")
    assert checkpoint.prune(own, "step-00000008") == [own / "step-00000002"]
    write(own, 2, 2)
    assert not (own / "step-00000002").is_symlink()
    assert (own / "step-00000002.old1").is_symlink()
    assert sorted(elsewhere.rglob("*")) == before


def test_saving_over_a_folder_keeps_what_a_person_put_there(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "step-00000012.old1").mkdir()
    again, model = write(tmp_path)
    assert again == folder
    assert sorted(os.listdir(folder)) == [MANIFEST, MODEL, OPTIMIZER, PROGRESS]
    assert os.listdir(tmp_path / "step-00000012.old2") == ["notes.txt"]
    into = target()
    checkpoint.load(folder, into)
    assert torch.equal(into.model.state_dict()["layer.weight"], model.layer.weight)


def test_leftovers_of_a_kill_are_removed_and_what_else_lies_in_them_stays(tmp_path: Path) -> None:
    for name in (".step-00000004.partial", ".step-00000008.partial", ".step-4.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL).write_text("half")
    (tmp_path / ".step-00000008.partial" / "notes.txt").write_text("mine")
    (tmp_path / ".step-00000009.partial").write_text("a file")
    write(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".step-00000008.partial", ".step-00000009.partial", ".step-4.partial", "step-00000012"]
    assert os.listdir(tmp_path / ".step-00000008.partial") == ["notes.txt"]


def test_a_failed_save_leaves_nothing_and_the_one_before_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = write(tmp_path, 8)
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    checkpoint.load(folder, target())


SAVER = """
import sys
from pathlib import Path
from test_checkpoint import write
from accl.training import checkpoint
root, step = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 2
    write(root, step, step)
    checkpoint.prune(root, f"step-{step:08d}")
    print(step, flush=True)
"""


def kill_while_saving(root: Path, saved: int, lines: int, pause: float) -> int:
    """Kill a process that saves in a loop, some time after it has said so many lines; return the last step it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(root), str(saved)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(lines):
        saved = int(process.stdout.readline())
    try:
        process.wait(pause)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    return max([saved, *map(int, rest.split())])


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_last_checkpoint_said_and_the_one_before(tmp_path: Path, kills: int) -> None:
    write(tmp_path, 2, 2)
    write(tmp_path, saved := 4, 4)
    for number in range(kills):
        saved = kill_while_saving(tmp_path, saved, 1 + number % 3, (number * 0.618 % 1) * 0.02)
        newest = int(checkpoint.candidates(tmp_path, "")[0].name.removeprefix("step-"))
        assert newest >= saved  # saved, perhaps, but not said
        for step in (newest, newest - 2):
            checkpoint.load(tmp_path / f"step-{step:08d}", target())
        saved = newest
    write(tmp_path, saved + 2, 2)
    checkpoint.prune(tmp_path, f"step-{saved + 2:08d}")
    assert len(list(tmp_path.iterdir())) == 2
