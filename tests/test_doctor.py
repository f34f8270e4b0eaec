"""`accl doctor` names what is missing, what to do about it, and which profiles can train."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import MODEL_REPO, MODEL_REVISION, serve
from huggingface_hub import constants

from accl.errors import ConfigError, RunError
from accl.launch import checks, sources
from accl.launch.check import Check, Level
from accl.launch.checks import examine
from accl.launch.gpus import Gpu

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 85_000_000_000)


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no Hub and no GPU but those that a test brings."""
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(checks, "gpus", list)


def line(found: list[Check], name: str) -> Check:
    (only,) = (check for check in found if check.name == name)
    return only


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "accl.cli.main", "doctor", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_demo_can_train_without_gpu_and_hub(tmp_path: Path) -> None:
    report = examine(["demo"], tmp_path / "runs", terminal=())

    assert report.usable == ["demo"]
    assert line(report.checks, "profile demo").level is Level.OK
    assert "Hub" not in [check.name for check in report.checks]  # not asked: not needed
    assert not (tmp_path / "runs").exists()


def test_paper_without_gpu_and_hub_says_what_is_missing_and_what_to_type(tmp_path: Path) -> None:
    report = examine(["demo", "paper"], tmp_path, terminal=())

    assert report.usable == ["demo"]
    failed = {check.name: check for check in report.checks if check.level is Level.FAIL}
    assert set(failed) == {"GPU", "model", "data", "profile paper"}
    assert all(failed[name].blocks == {"paper"} for name in ("GPU", "model", "data"))
    assert "accl train full --profile demo" in failed["GPU"].advice
    assert "--set model.name=DIR" in failed["model"].advice
    assert "--set data.path=DIR" in failed["data"].advice
    assert failed["profile paper"].finding == "cannot train here: GPU, model, data"
    assert all(check.advice for check in report.checks if check.level is not Level.OK)


def test_hub_that_answers_makes_a_missing_model_no_obstacle_and_a_cached_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "HUB_SECONDS", 60.0)  # returns as soon as there is an answer
    with serve(tmp_path) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        before = examine(["paper"], tmp_path, terminal=())
    assert line(before.checks, "Hub").finding == f"{server.url} answers"
    assert line(before.checks, "model").level is Level.OK
    assert "the first run fetches it" in line(before.checks, "model").finding

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = Path(constants.HF_HUB_CACHE, "--".join(["models", *MODEL_REPO.split("/")]), "snapshots", MODEL_REVISION)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "spm.model", "pytorch_model.bin"):
        (snapshot / name).touch()

    after = examine(["paper"], tmp_path, terminal=())

    assert line(after.checks, "Hub").level is Level.WARN
    assert line(after.checks, "model").finding == f"{MODEL_REPO} is cached"
    assert line(after.checks, "data").level is Level.FAIL


def test_a_missing_c_compiler_makes_training_on_the_cpu_slower_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCL_NATIVE", raising=False)
    monkeypatch.delenv("CC", raising=False)
    assert line(examine(["demo"], tmp_path, terminal=()).checks, "C compiler").level is Level.OK

    monkeypatch.setenv("PATH", str(tmp_path))
    report = examine(["demo"], tmp_path, terminal=())
    found = line(report.checks, "C compiler")
    assert (found.level, found.finding) == (Level.WARN, "no C compiler (cc) was found")
    assert "Training on the CPU is slower" in found.advice
    assert "apt install gcc" in found.advice
    assert report.usable == ["demo"]
    assert line(examine(["paper"], tmp_path, terminal=()).checks, "C compiler").level is Level.OK

    monkeypatch.setenv("CC", "my-cc -m64")
    assert (
        line(examine(["demo"], tmp_path, terminal=()).checks, "C compiler").finding == "no C compiler (my-cc) was found"
    )


def test_compiled_code_that_is_switched_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCL_NATIVE", "0")
    report = examine(["demo"], tmp_path, terminal=())
    found = line(report.checks, "C compiler")
    assert (found.level, found.finding) == (
        Level.WARN,
        "ACCL_NATIVE=0 switches compiled code off; unset it to switch it on",
    )
    assert "unset ACCL_NATIVE" in found.advice
    assert report.usable == ["demo"]
    assert line(examine(["paper"], tmp_path, terminal=()).checks, "C compiler").level is Level.OK


@pytest.mark.parametrize("compiler", ["false", "true", "'", "cc --no-such-option"])
def test_a_compiler_that_does_not_compile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.delenv("ACCL_NATIVE", raising=False)
    monkeypatch.setenv("CC", compiler)
    report = examine(["demo"], tmp_path, terminal=())
    assert line(report.checks, "C compiler").level is Level.WARN
    assert report.usable == ["demo"]


def test_a_compiler_that_hangs_or_cannot_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCL_NATIVE", raising=False)
    monkeypatch.setattr(checks, "COMPILER_SECONDS", 0.01)
    monkeypatch.setenv("CC", f"{sys.executable} -c 'import signal; signal.pause()'")
    assert "no answer" in line(examine(["demo"], tmp_path, terminal=()).checks, "C compiler").finding
    program = tmp_path / "cc"
    program.write_bytes(b"neither program nor script")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    assert "Exec format error" in line(examine(["demo"], tmp_path, terminal=()).checks, "C compiler").finding


def test_compiled_code_that_would_be_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCL_NATIVE", raising=False)
    folder = tmp_path / "cache" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    found = line(examine(["demo"], tmp_path, terminal=()).checks, "C compiler")
    assert found.level is Level.WARN
    assert f"compiled code is not loaded from {folder}, which other users can write to" in found.finding


@pytest.mark.parametrize("kind", ["file", "writable by all", "below a file", "none"])
def test_a_cache_that_cannot_be_used_makes_training_slower_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache = tmp_path / "cache"
    if kind == "writable by all":
        cache.mkdir()
        cache.chmod(0o777)
    elif kind == "none":
        monkeypatch.setenv("ACCL_CACHE", "~no-such-user/cache")
    else:
        cache.touch()
    if kind == "below a file":
        monkeypatch.setenv("ACCL_CACHE", str(cache / "below"))
    report = examine(["demo"], tmp_path, terminal=())
    assert line(report.checks, "cache folder").level is Level.WARN
    assert report.usable == ["demo"]


def test_a_current_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "accl.cli.main"]
    root = str(Path(checks.__file__).parents[2])
    script = 'rmdir "$PWD" && exec "$@"'

    def there(*arguments: str) -> subprocess.CompletedProcess[str]:
        gone.mkdir(exist_ok=True)
        return subprocess.run(
            ["sh", "-c", script, "sh", *command, *arguments],
            cwd=gone,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    train = there("train", "full", "--profile", "demo", "--runs", str(tmp_path / "runs"))
    assert train.returncode == RunError.exit_code
    assert train.stderr.splitlines()[0] == "error: The current folder has been removed."
    assert not (tmp_path / "runs").exists()
    doctor = there("doctor", "--profile", "demo", "--format", "json", "--runs", str(tmp_path / "runs"))
    assert (doctor.returncode, doctor.stderr) == (1, "")
    assert ("current folder", "fail") in {(found["check"], found["result"]) for found in json.loads(doctor.stdout)}
    for word in ("doctor", "runs"):  # which look for ./runs
        done = there(word)
        assert done.returncode == ConfigError.exit_code
        assert done.stderr.splitlines()[0] == "error: The current folder has been removed."


def test_an_environment_without_variables_is_enough(tmp_path: Path) -> None:
    root = str(Path(checks.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "accl.cli.main", "doctor", "--profile", "demo", "--format", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_damaged_model_in_the_hubs_cache_is_told(tmp_path: Path) -> None:
    repo = Path(constants.HF_HUB_CACHE, "--".join(["models", *MODEL_REPO.split("/")]))
    snapshot = repo / "snapshots" / MODEL_REVISION
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / ("a" * 64)).write_bytes(b"not what it was")
    for name in ("config.json", "spm.model", "pytorch_model.bin"):
        (snapshot / name).symlink_to(repo / "blobs" / ("a" * 64))
    found = line(examine(["paper"], tmp_path, terminal=()).checks, "model")
    assert (found.level, found.blocks) == (Level.FAIL, {"paper"})
    assert "is not as it was fetched" in found.finding
    assert str(repo) in found.advice


def test_an_endpoint_that_is_no_address_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "not a url")
    assert "HF_ENDPOINT is no address" in line(examine(["minilm"], tmp_path, terminal=()).checks, "Hub").finding


def test_offline_mode_is_told_apart_from_a_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "out of reach" in line(examine(["minilm"], tmp_path, terminal=()).checks, "Hub").finding
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert line(examine(["minilm"], tmp_path, terminal=()).checks, "Hub").finding == "HF_HUB_OFFLINE is set"


def test_own_profile_with_malformed_local_data_fails_with_the_error_of_the_data(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        f"data:\n  source: folder\n  path: {tmp_path / 'nowhere'}\n"
        f"model:\n  name: {tmp_path}\ntrain:\n  device: auto\n  precision: fp32\n"
    )
    report = examine([str(profile)], tmp_path, terminal=())

    assert report.usable == []
    assert "nowhere" in line(report.checks, "data").finding
    assert "config.json" in line(report.checks, "model").finding
    assert line(report.checks, "GPU").level is Level.WARN


@pytest.mark.parametrize(
    ("built", "driver_cuda", "capability", "level", "words"),
    [
        ("13.0", 13020, (9, 0), Level.OK, ""),
        (None, 13020, (9, 0), Level.FAIL, "build for CPUs"),
        ("13.0", 12080, (9, 0), Level.FAIL, "update the driver"),
        ("13.0", 13020, (7, 5), Level.WARN, "train.precision=fp32"),
    ],
)
def test_a_gpu_counts_when_torch_and_driver_can_use_it(
    built: str | None,
    driver_cuda: int,
    capability: tuple[int, int],
    level: Level,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pynvml

    monkeypatch.setattr(checks, "gpus", lambda: [H100])
    monkeypatch.setattr(checks, "torch_cuda", lambda: built)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion", lambda: driver_cuda)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda _: capability)

    check = line(examine(["paper"], tmp_path, terminal=()).checks, "GPU")

    assert check.level is level
    assert words in check.advice
    assert "H100 80GB HBM3 85 GB; driver 580.1" in check.finding


def test_cuda_version_of_torch_is_read_without_importing_it() -> None:
    code = (
        "import json, sys; from accl.launch.checks import torch_cuda; "
        "found = torch_cuda(); assert 'torch' not in sys.modules; "
        "import torch; print(json.dumps([found, torch.version.cuda]))"
    )
    found, true = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert found == true


def test_packages_too_old_or_missing_block_every_profile() -> None:
    every = frozenset({"demo"})
    found = list(
        checks.requirements_met(
            ["duckdb>=999", "numpy>=1", "no-such-package-here>=1", 'pytest>=999; extra == "dev"'], every
        )
    )

    duckdb = line(found, "duckdb")
    assert (duckdb.level, duckdb.blocks) == (Level.FAIL, every)
    assert duckdb.advice == "Type: pip install 'duckdb>=999'"
    others = line(found, "other packages")
    assert (others.level, others.finding) == (Level.FAIL, "no-such-package-here missing")


def test_runs_folder_that_cannot_be_made_blocks_every_profile(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    report = examine(["demo"], tmp_path / "file" / "runs", terminal=())

    assert report.usable == []
    assert line(report.checks, "runs folder").level is Level.FAIL
    assert "ACCL_RUNS" in line(report.checks, "runs folder").advice


def test_runs_folder_on_a_network_file_system_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [("/", "ext4"), (str(tmp_path), "ext4"), (str(tmp_path), "nfs4"), ("/elsewhere", "tmpfs")]
    parts = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(checks.psutil, "disk_partitions", lambda **_: parts)

    check = line(examine(["demo"], tmp_path / "runs", terminal=()).checks, "runs folder")

    assert check.level is Level.WARN
    assert "nfs4" in check.finding
    assert "locks" in check.advice


@pytest.mark.parametrize(("free", "level", "usable"), [(5e9, Level.WARN, ["demo"]), (1e8, Level.FAIL, [])])
def test_little_room_on_the_disk_warns_and_none_blocks(
    free: float, level: Level, usable: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.psutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    report = examine(["demo"], tmp_path, terminal=())
    assert (line(report.checks, "disk").level, report.usable) == (level, usable)


@pytest.mark.parametrize(
    ("environment", "size", "terminal", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, (30, 100), Level.OK, Level.OK),
        ({"TERM": "xterm-256color"}, (10, 40), Level.WARN, Level.OK),
        ({"TERM": "xterm"}, (24, 80), Level.OK, Level.WARN),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, (24, 80), Level.OK, Level.WARN),
        ({"TERM": "dumb"}, (24, 80), Level.WARN, None),
    ],
)
def test_terminal_is_judged_by_size_and_colours(
    environment: dict[str, str],
    size: tuple[int, int],
    terminal: Level,
    colours: Level | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        found = {check.name: check.level for check in examine(["demo"], tmp_path, terminal=(theirs,)).checks}
    finally:
        os.close(ours)
        os.close(theirs)
    assert found["terminal"] is terminal
    assert found.get("colours") is colours


def test_command_prints_raw_rows_as_json_and_ends_well_when_a_profile_can_train(tmp_path: Path) -> None:
    done = run_doctor("--profile", "demo", "--format", "json", "--runs", str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert all(set(row) == {"check", "result", "found", "next"} for row in rows)
    assert rows[-1]["check"] == "profile demo"
    assert {row["result"] for row in rows} <= {"ok", "warn", "fail"}


def test_command_fails_when_no_profile_can_train_and_prints_even_where_utf8_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_doctor("--runs", str(tmp_path / "file" / "runs"), PYTHONIOENCODING="ascii", HF_HUB_OFFLINE="1")

    assert (done.returncode, done.stderr) == (1, "")
    assert "fail" in done.stdout
    assert "profile demo" in done.stdout


def test_unknown_profile_is_one_line_and_a_next_step() -> None:
    done = run_doctor("--profile", "dmeo")

    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == "error: Unknown profile 'dmeo'."
    assert "Did you mean 'demo'?" in done.stderr
    assert "Traceback" not in done.stderr
