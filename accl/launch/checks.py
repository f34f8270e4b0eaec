"""The checks of `accl doctor`: packages and machine, and which profiles can train here."""

from __future__ import annotations

import fcntl
import importlib.util
import locale
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from accl import __version__
from accl.config import Config, resolve
from accl.data.hub import cache_folder
from accl.launch.check import Check, Level, assess
from accl.launch.gpus import Gpu, gpus
from accl.launch.sources import check_hub, check_sources, from_hub, start_hub_probe

NAMED = ("torch", "transformers", "duckdb", "textual")  # packages with a check of their own
GB = 1e9

# A checkpoint of DeBERTa-v3-base is 185 M parameters x 4 bytes, and twice that for AdamW's moments: 2.2 GB; a run
# keeps two of them.
SMALL_DISK, NO_DISK = 10 * GB, 0.2 * GB
SMALL_MEMORY = 2 * GB  # the demo, the smallest profile, takes 0.6 GB
SMALLEST_TERMINAL = (80, 24)
BF16_SINCE = (8, 0)  # compute capability of Ampere

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ceph|lustre|gpfs|beegfs|afs|9p|glusterfs|fuse\.(sshfs|glusterfs|s3fs|gcsfuse)"
)


@dataclass(frozen=True)
class Report:
    """All checks, and the names of the profiles that can train here."""

    checks: list[Check]
    usable: list[str]


def examine(profiles: Sequence[str], runs: Path, terminal: Sequence[int] = (0, 1, 2)) -> Report:
    """Check everything that training these profiles needs.

    Args:
        profiles: names or paths.
        runs: runs folder; not created.
        terminal: file descriptors, one of which may be the terminal.

    Raises:
        ConfigError: a profile does not exist or does not validate.
    """
    configs = {name: resolve("full", name).config for name in profiles}
    # Started first, to run beside the other checks.
    wait = start_hub_probe() if any(from_hub(config) for config in configs.values()) else None
    every = frozenset(profiles)
    checks = [*_versions(every), _gpu(gpus(), configs), *_processor(), _compiler(configs)]
    checks += [*_folders(runs, every), *_terminal(terminal)]
    reachable = wait is not None and wait()
    if wait is not None:
        checks.append(check_hub(reachable))
    checks += check_sources(configs, reachable)
    obstacles = {name: [check.name for check in checks if name in check.blocks] for name in profiles}
    checks += [_verdict(name, found) for name, found in obstacles.items()]
    return Report(checks, [name for name in profiles if not obstacles[name]])


# Packages ----------------------------------------------------------------------------------------


def _versions(every: frozenset[str]) -> Iterator[Check]:
    yield assess("python", ".".join(map(str, sys.version_info[:3])))
    install = "Type: pip install -c requirements.txt -e ."
    try:
        own, requirements = metadata.version("accl"), metadata.requires("accl") or []
    except metadata.PackageNotFoundError:
        yield assess("accl", f"{__version__}, not installed", install)
        return
    same = own == __version__
    yield assess("accl", own) if same else assess("accl", f"{__version__}, installed as {own}", install)
    yield from requirements_met(requirements, every)


def requirements_met(requirements: Iterable[str], every: frozenset[str]) -> Iterator[Check]:
    """Compare requirement strings with installed versions: a check for each in `NAMED`, one for all others."""
    from packaging.requirements import Requirement

    fine, wrong, missing = 0, [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, versions = requirement.name, requirement.specifier
        try:
            installed = metadata.version(name)
            good = versions.contains(installed, prereleases=True)
        except metadata.PackageNotFoundError:
            installed, good = "missing", False
        if name in NAMED:
            advice = "" if good else f"Type: pip install '{name}{versions}'"
            yield assess(name, f"{installed} (needs {versions})", advice, every)
        elif good:
            fine += 1
        else:
            wrong.append(f"{name} {installed}")
            missing.append(f"'{name}{versions}'")
    if wrong:
        yield assess("other packages", ", ".join(wrong), f"Type: pip install {' '.join(missing)}", every)
    elif fine:
        yield assess("other packages", f"all {fine} as needed")


# Machine -----------------------------------------------------------------------------------------


def _gpu(present: Sequence[Gpu], configs: Mapping[str, Config]) -> Check:
    requiring = frozenset(name for name, config in configs.items() if config.train.device == "cuda")
    if not present:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        finding = "no NVIDIA GPU" + " (CUDA_VISIBLE_DEVICES hides them all)" * hidden
        if requiring:
            advice = "Use a machine with one, or type: accl train full --profile demo"
            return assess("GPU", f"{finding} (needed by {' and '.join(sorted(requiring))})", advice, requiring)
        if slow := [name for name, config in configs.items() if config.train.device == "auto"]:
            return assess("GPU", finding, f"{' and '.join(slow)} will train on the CPU, slowly.")
        return assess("GPU", f"{finding}, and none needed")
    import pynvml

    newest = int(pynvml.nvmlSystemGetCudaDriverVersion()) // 1000
    memory = ", ".join(f"{gpu.name} {gpu.memory_total / GB:.0f} GB" for gpu in present)
    finding = f"{memory}; driver {pynvml.nvmlSystemGetDriverVersion()}"
    built = torch_cuda()
    if built is None or int(built.split(".")[0]) > newest:
        advice = f"torch is built for CUDA {built} and the driver knows CUDA {newest}: update the driver."
        cpu_only = "The installed torch is a build for CPUs. Install the CUDA build of the same version."
        return assess("GPU", finding, advice if built else cpu_only, requiring)
    handles = [pynvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in present]
    major, minor = min(tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)) for handle in handles)
    if (major, minor) >= BF16_SINCE:
        return assess("GPU", finding)
    advice = "It computes bf16 slowly; use --set train.precision=fp32"
    return assess("GPU", f"{finding}; compute capability {major}.{minor}", advice)


def torch_cuda() -> str | None:
    """Return the CUDA version that torch is built for, read from its version file: importing torch is slow."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", file.read_text(encoding="utf-8"), re.M) if file.is_file() else None
    return match[1] if match else None


def _processor() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    yield assess("CPU", f"{cores} core{'s' if cores > 1 else ''}")
    memory = psutil.virtual_memory()
    total, free = float(memory.total), float(memory.available)
    limit = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
    text = limit.read_text().strip() if limit.is_file() else "max"
    if text.isdigit() and int(text) < total:
        total, free = float(text), min(free, float(text))
    advice = "The demo takes 0.6 GB, larger profiles more: close something." if free < SMALL_MEMORY else ""
    yield assess("memory", f"{free / GB:.1f} of {total / GB:.1f} GB free", advice)


def _compiler(configs: Mapping[str, Config]) -> Check:
    """Look for what `accl.kernels.cpu.compiler` needs: a C compiler, and the permission to call it."""
    named = (shlex.split(os.environ.get("CC", "")) or ["cc"])[0]
    path = shutil.which(named)
    if os.environ.get("ACCL_NATIVE") == "0":
        finding = "switched off by ACCL_NATIVE=0"
        advice = "Training on the CPU is slower without compiled code. Type: unset ACCL_NATIVE"
    elif path is None:
        finding = f"no {named}" + " (named by CC)" * bool(os.environ.get("CC"))
        advice = "Training on the CPU is slower without one. Install gcc or clang: apt install gcc, dnf install gcc"
        advice += ", or xcode-select --install"
    else:
        return assess("C compiler", path)
    if all(config.train.device == "cuda" for config in configs.values()):
        return assess("C compiler", f"{finding}, and none needed")
    return assess("C compiler", finding, advice)


def _folders(runs: Path, every: frozenset[str]) -> Iterator[Check]:
    elsewhere = "Choose another folder with --runs DIR or the environment variable ACCL_RUNS."
    if problem := unwritable(runs):
        yield assess("runs folder", f"{runs}: {problem}", elsewhere, every)
        return
    kind = file_system(runs)
    advice = f"DuckDB needs file locks, which are unsure on a network file system. {elsewhere}"
    finding = f"{runs} is writable" + (f", on {kind}" if kind else "")
    yield assess("runs folder", finding, advice if _NETWORK.fullmatch(kind) else "")
    free = psutil.disk_usage(str(_existing(runs))).free
    finding = f"{free / GB:.1f} GB free"
    if free < NO_DISK:
        yield assess("disk", finding, f"Make room. {elsewhere}", every)
    else:
        advice = f"Two checkpoints of a paper run take 4.4 GB. {elsewhere}"
        yield assess("disk", finding, advice if free < SMALL_DISK else "")
    cache = cache_folder()
    if problem := unwritable(cache):
        advice = "Choose another with the environment variable ACCL_CACHE."
        yield assess("cache folder", f"{cache}: {problem}", advice, every)
    else:
        yield assess("cache folder", f"{cache} is writable")


def unwritable(folder: Path) -> str:
    """Say why a folder cannot hold runs; empty when it can.

    A temporary file is made and locked; the folder itself is not created.
    """
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place, prefix=".accl-doctor-") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kind of lock that DuckDB uses
    except OSError as error:
        where = "" if place == folder else f" in {place}"
        return f"cannot be written{where} ({error.strerror})"
    return ""


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is, or would be, on; empty when unknown."""
    place = _existing(folder)
    mounts = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    # The longest path is the nearest mount; of several at one path the last hides the others.
    nearest = max(reversed(mounts), key=lambda part: len(Path(part.mountpoint).parts), default=None)
    return nearest.fstype if nearest else ""


def _existing(folder: Path) -> Path:
    """Return the folder or its nearest existing parent."""
    path = folder.expanduser().resolve()
    return next((place for place in (path, *path.parents) if place.exists()), path)


# Terminal ----------------------------------------------------------------------------------------


def _terminal(descriptors: Sequence[int]) -> Iterator[Check]:
    screen = next((number for number in descriptors if os.isatty(number)), None)
    kind = os.environ.get("TERM", "")
    if screen is None or kind in ("", "dumb"):
        finding = "none here" if screen is None else f"TERM={kind or '(not set)'}"
        yield assess("terminal", finding, "accl tui needs a terminal; accl runs and accl show do not.")
    else:
        width, height = os.get_terminal_size(screen)
        columns, lines = SMALLEST_TERMINAL
        advice = f"Make it {columns} x {lines} or larger for accl tui." if width < columns or height < lines else ""
        yield assess("terminal", f"{kind}, {width} x {height}", advice)
        yield _colours(kind)
    encoding = locale.getpreferredencoding(False)
    utf8 = encoding.lower().replace("-", "") == "utf8"
    yield assess("locale", encoding, "" if utf8 else "Charts need UTF-8. Type: export LANG=C.UTF-8")


def _colours(kind: str) -> Check:
    if os.environ.get("NO_COLOR"):
        return assess("colours", "turned off by NO_COLOR", "For the confusion grid: unset NO_COLOR")
    true_colour = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    if true_colour or "256" in kind:
        return assess("colours", "16.7 million" if true_colour else "256")
    advice = "If your terminal knows more colours, type: export COLORTERM=truecolor"
    return assess("colours", "8 or 16, as far as is known", advice)


def _verdict(profile: str, obstacles: Sequence[str]) -> Check:
    name = f"profile {profile}"
    if obstacles:
        return Check(name, Level.FAIL, f"cannot train here: {', '.join(obstacles)}", "See the lines above.")
    return Check(name, Level.OK, "can train here", f"Type: accl train full --profile {profile}")
