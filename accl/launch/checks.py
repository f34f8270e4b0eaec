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
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

from accl import __version__
from accl.config import Config, resolve
from accl.data.hub import cache_folder
from accl.launch.check import Check, Level
from accl.launch.gpus import Gpu, gpus
from accl.launch.sources import HubProbe, check_hub, check_sources, from_hub

OLDEST_PYTHON = (3, 11)
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

    checks: list[Check] = field(default_factory=list)
    usable: list[str] = field(default_factory=list)


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
    needs_hub = any(from_hub(config) for config in configs.values())
    probe = HubProbe() if needs_hub else None  # started first, to run beside the other checks
    every = frozenset(profiles)
    checks = [
        *_versions(every),
        _gpu(gpus(), configs),
        *_processor(),
        _compiler(configs),
        *_folders(runs, every),
        *_terminal(terminal),
    ]
    reachable = probe is not None and probe.wait()
    if probe is not None:
        checks.append(check_hub(reachable))
    checks += check_sources(configs, reachable)
    blocked = frozenset[str]().union(*(check.blocks for check in checks))
    usable = [name for name in profiles if name not in blocked]
    obstacles = {name: [check.name for check in checks if name in check.blocks] for name in profiles}
    checks += [_verdict(name, obstacles[name]) for name in profiles]
    return Report(checks, usable)


# Packages ----------------------------------------------------------------------------------------


def _versions(every: frozenset[str]) -> Iterator[Check]:
    good = sys.version_info[:2] >= OLDEST_PYTHON
    advice = "" if good else f"Make the virtual environment with Python {'.'.join(map(str, OLDEST_PYTHON))} or newer."
    shown = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", Level.OK if good else Level.FAIL, shown, advice, frozenset() if good else every)
    try:
        own, requirements = metadata.version("accl"), metadata.requires("accl") or []
    except metadata.PackageNotFoundError:
        yield Check("accl", Level.WARN, f"{__version__}, not installed", "Type: pip install -c requirements.txt -e .")
        return
    same = own == __version__
    advice = "" if same else "Type: pip install -c requirements.txt -e ."
    finding = own if same else f"{__version__}, installed as {own}"
    yield Check("accl", Level.OK if same else Level.WARN, finding, advice)
    yield from requirements_met(requirements, every)


def requirements_met(requirements: Iterable[str], every: frozenset[str]) -> Iterator[Check]:
    """Compare requirement strings with installed versions: a check for each in `NAMED`, one for all others."""
    from packaging.requirements import Requirement

    fine, wrong = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        specification = f"{requirement.name}{requirement.specifier}"
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        good = installed != "missing" and requirement.specifier.contains(installed, prereleases=True)
        if requirement.name in NAMED:
            advice = "" if good else f"Type: pip install '{specification}'"
            level, blocks = (Level.OK, frozenset[str]()) if good else (Level.FAIL, every)
            yield Check(requirement.name, level, f"{installed} (needs {requirement.specifier})", advice, blocks)
        elif good:
            fine.append(requirement.name)
        else:
            wrong.append((requirement.name, installed, specification))
    if wrong:
        finding = ", ".join(f"{name} {installed}" for name, installed, _ in wrong)
        advice = "Type: pip install " + " ".join(f"'{specification}'" for *_, specification in wrong)
        yield Check("other packages", Level.FAIL, finding, advice, every)
    elif fine:
        yield Check("other packages", Level.OK, f"all {len(fine)} as needed")


# Machine -----------------------------------------------------------------------------------------


def _gpu(present: Sequence[Gpu], configs: Mapping[str, Config]) -> Check:
    requiring = frozenset(name for name, config in configs.items() if config.train.device == "cuda")
    optional = [name for name, config in configs.items() if config.train.device == "auto"]
    if not present:
        finding = "no NVIDIA GPU"
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            finding += " (CUDA_VISIBLE_DEVICES hides them all)"
        if requiring:
            advice = "Use a machine with one, or type: accl train full --profile demo"
            return Check(
                "GPU", Level.FAIL, f"{finding} (needed by {' and '.join(sorted(requiring))})", advice, requiring
            )
        if optional:
            return Check("GPU", Level.WARN, finding, f"{' and '.join(optional)} will train on the CPU, slowly.")
        return Check("GPU", Level.OK, f"{finding}, and none needed")
    import pynvml

    driver = pynvml.nvmlSystemGetDriverVersion()
    newest = int(pynvml.nvmlSystemGetCudaDriverVersion()) // 1000
    memory = ", ".join(f"{gpu.name} {gpu.memory_total / GB:.0f} GB" for gpu in present)
    finding = f"{memory}; driver {driver if isinstance(driver, str) else driver.decode()}"
    built = torch_cuda()
    if built is None:
        advice = "The installed torch is a build for CPUs. Install the CUDA build of the same version."
        return Check("GPU", Level.FAIL if requiring else Level.WARN, finding, advice, requiring)
    if int(built.split(".")[0]) > newest:
        advice = f"torch is built for CUDA {built} and the driver knows CUDA {newest}: update the driver."
        return Check("GPU", Level.FAIL if requiring else Level.WARN, finding, advice, requiring)
    capability = min(
        tuple(pynvml.nvmlDeviceGetCudaComputeCapability(pynvml.nvmlDeviceGetHandleByIndex(gpu.index)))
        for gpu in present
    )
    if capability < BF16_SINCE:
        advice = "It computes bf16 slowly; use --set train.precision=fp32"
        return Check("GPU", Level.WARN, f"{finding}; compute capability {capability[0]}.{capability[1]}", advice)
    return Check("GPU", Level.OK, finding)


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
    yield Check("CPU", Level.OK, f"{cores} core{'s' if cores > 1 else ''}")
    memory = psutil.virtual_memory()
    total, free = float(memory.total), float(memory.available)
    limit = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
    text = limit.read_text().strip() if limit.is_file() else "max"
    if text.isdigit() and int(text) < total:
        total, free = float(text), min(free, float(text))
    finding = f"{free / GB:.1f} of {total / GB:.1f} GB free"
    if free < SMALL_MEMORY:
        yield Check("memory", Level.WARN, finding, "The demo takes 0.6 GB, larger profiles more: close something.")
    else:
        yield Check("memory", Level.OK, finding)


def _compiler(configs: Mapping[str, Config]) -> Check:
    """Look for the compiler that `accl.kernels.cpu.native` calls."""
    named = (shlex.split(os.environ.get("CC", "")) or ["cc"])[0]
    path = shutil.which(named)
    if path is not None:
        return Check("C compiler", Level.OK, path)
    finding = f"no {named}" + (" (named by CC)" if os.environ.get("CC") else "")
    if all(config.train.device == "cuda" for config in configs.values()):
        return Check("C compiler", Level.OK, f"{finding}, and none needed")
    advice = "Training on the CPU is slower without one. Install gcc or clang: apt install gcc, dnf install gcc"
    return Check("C compiler", Level.WARN, finding, f"{advice}, or xcode-select --install")


def _folders(runs: Path, every: frozenset[str]) -> Iterator[Check]:
    elsewhere = "Choose another folder with --runs DIR or the environment variable ACCL_RUNS."
    problem = unwritable(runs)
    if problem:
        yield Check("runs folder", Level.FAIL, f"{runs}: {problem}", elsewhere, every)
        return
    kind = file_system(runs)
    if _NETWORK.fullmatch(kind):
        advice = f"DuckDB needs file locks, which are unsure on a network file system. {elsewhere}"
        yield Check("runs folder", Level.WARN, f"{runs} is writable, on {kind}", advice)
    else:
        yield Check("runs folder", Level.OK, f"{runs} is writable" + (f", on {kind}" if kind else ""))
    free = psutil.disk_usage(str(_existing(runs))).free
    finding = f"{free / GB:.1f} GB free"
    if free < NO_DISK:
        yield Check("disk", Level.FAIL, finding, f"Make room. {elsewhere}", every)
    elif free < SMALL_DISK:
        yield Check("disk", Level.WARN, finding, f"Two checkpoints of a paper run take 4.4 GB. {elsewhere}")
    else:
        yield Check("disk", Level.OK, finding)
    cache = cache_folder()
    problem = unwritable(cache)
    advice = "Choose another with the environment variable ACCL_CACHE." if problem else ""
    finding = f"{cache}: {problem}" if problem else f"{cache} is writable"
    yield Check("cache folder", Level.FAIL if problem else Level.OK, finding, advice, every if problem else frozenset())


def unwritable(folder: Path) -> str:
    """Say why a folder cannot hold runs; empty when it can.

    Creates and locks a temporary file; the folder itself is not created.
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
    nearest = max(enumerate(mounts), key=lambda pair: (len(Path(pair[1].mountpoint).parts), pair[0]), default=None)
    return nearest[1].fstype if nearest else ""


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
        yield Check("terminal", Level.WARN, finding, "accl tui needs a terminal; accl runs and accl show do not.")
    else:
        width, height = os.get_terminal_size(screen)
        small = width < SMALLEST_TERMINAL[0] or height < SMALLEST_TERMINAL[1]
        advice = f"Make it {SMALLEST_TERMINAL[0]} x {SMALLEST_TERMINAL[1]} or larger for accl tui." if small else ""
        yield Check("terminal", Level.WARN if small else Level.OK, f"{kind}, {width} x {height}", advice)
        yield _colours(kind)
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") == "utf8":
        yield Check("locale", Level.OK, encoding)
    else:
        yield Check("locale", Level.WARN, encoding, "Charts need UTF-8. Type: export LANG=C.UTF-8")


def _colours(kind: str) -> Check:
    if os.environ.get("NO_COLOR"):
        return Check("colours", Level.WARN, "turned off by NO_COLOR", "For the confusion grid: unset NO_COLOR")
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return Check("colours", Level.OK, "16.7 million")
    if "256" in kind:
        return Check("colours", Level.OK, "256")
    advice = "If your terminal knows more colours, type: export COLORTERM=truecolor"
    return Check("colours", Level.WARN, "8 or 16, as far as is known", advice)


# Verdict ----------------------------------------------------------------------------------------


def _verdict(profile: str, obstacles: Sequence[str]) -> Check:
    name = f"profile {profile}"
    if obstacles:
        return Check(name, Level.FAIL, f"cannot train here: {', '.join(obstacles)}", "See the lines above.")
    return Check(name, Level.OK, "can train here", f"Type: accl train full --profile {profile}")
