"""The checks of `accl doctor`: packages and machine, and which profiles can train here."""

from __future__ import annotations

import fcntl
import locale
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from accl import __version__
from accl.config import Config, resolve
from accl.data.cache import cache_folder, refusal
from accl.kernels.cpu import compiler
from accl.launch.check import Check, Level, assess
from accl.launch.gpus import Gpu, absence, gpus, told, torch_cuda
from accl.launch.machine import cores, memory
from accl.launch.sources import check_hub, check_sources, from_hub, start_hub_probe

NAMED = ("torch", "transformers", "duckdb", "textual")  # packages with a check of their own
GB = 1e9

# A checkpoint of DeBERTa-v3-base is 185 M parameters x 4 bytes, and twice that for AdamW's moments: 2.2 GB; a run
# keeps two of them.
SMALL_DISK, NO_DISK = 10 * GB, 0.2 * GB
SMALL_MEMORY = 2 * GB  # the demo, the smallest profile, takes 0.6 GB
COMPILER_SECONDS = 10
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


def examine(
    profiles: Sequence[str], runs: Path, overrides: Sequence[str] = (), terminal: Sequence[int] = (0, 1, 2)
) -> Report:
    """Check everything that training these profiles needs.

    Args:
        profiles: names or paths.
        runs: runs folder; not created.
        overrides: `KEY=VALUE` that take the place of values of every profile.
        terminal: file descriptors, one of which may be the terminal.

    Raises:
        ConfigError: a profile does not exist, or does not validate with the overrides.
    """
    configs = {name: resolve("full", name, overrides).config for name in profiles}
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
        finding = absence()
        if requiring:
            advice = "Use a machine with one, or type: accl train full --profile demo"
            return assess("GPU", f"{finding} (needed by {' and '.join(sorted(requiring))})", advice, requiring)
        if slow := [name for name, config in configs.items() if config.train.device == "auto"]:
            return assess("GPU", finding, f"{' and '.join(slow)} will train on the CPU, slowly.")
        return assess("GPU", f"{finding}, and none needed")
    finding = ", ".join(map(_described, present))
    if driver := told("nvmlSystemGetDriverVersion"):
        finding += f"; driver {driver}"
    newest = told("nvmlSystemGetCudaDriverVersion")
    built = torch_cuda()
    if built is None:
        advice = "The installed torch is a build for CPUs. Install the CUDA build of the same version."
        return assess("GPU", finding, advice, requiring)
    if newest is not None and int(built.split(".")[0]) > newest // 1000:
        advice = f"torch is built for CUDA {built} and the driver knows CUDA {newest // 1000}: update the driver."
        return assess("GPU", finding, advice, requiring)
    handles = [told("nvmlDeviceGetHandleByIndex", gpu.index) for gpu in present]
    known = [told("nvmlDeviceGetCudaComputeCapability", handle) for handle in handles if handle is not None]
    oldest = min((tuple(capability) for capability in known if capability is not None), default=BF16_SINCE)
    if oldest >= BF16_SINCE:
        return assess("GPU", finding)
    advice = "It computes bf16 slowly; use --set train.precision=fp32"
    return assess("GPU", f"{finding}; compute capability {'.'.join(map(str, oldest))}", advice)


def _described(gpu: Gpu) -> str:
    return gpu.name if gpu.memory_total is None else f"{gpu.name} {gpu.memory_total / GB:.0f} GB"


def _processor() -> Iterator[Check]:
    count = cores()
    yield assess("CPU", f"{count} core{'s' if count > 1 else ''}")
    if (known := memory()) is None:
        yield assess("memory", "unknown: the system does not tell", "Is /proc mounted? Training needs 0.6 GB or more.")
        return
    free, total = known
    advice = "The demo takes 0.6 GB, larger profiles more: close something." if free < SMALL_MEMORY else ""
    yield assess("memory", f"{free / GB:.1f} of {total / GB:.1f} GB free", advice)


def _compiler(configs: Mapping[str, Config]) -> Check:
    """Look for all that `accl.kernels.cpu` needs, and compile nothing but an empty file."""
    install = "Install gcc or clang: apt install gcc, dnf install gcc, or xcode-select --install"
    switched_off = os.environ.get("ACCL_NATIVE") == "0"
    advice = "Training on the CPU is slower without compiled code. "
    try:
        command = compiler.find_compiler()
    except compiler.UnavailableError as error:
        finding, advice = str(error), advice + ("Type: unset ACCL_NATIVE" if switched_off else install)
    else:
        folder = cache_folder()
        if problem := _failure(command):
            finding, advice = f"{command[0]} does not compile ({problem})", advice + install
        elif refused := folder and compiler.refusal(folder / "native"):
            finding, advice = f"{command[0]}, but {refused}", advice.strip()
        else:
            return assess("C compiler", command[0])
    if all(config.train.device == "cuda" for config in configs.values()):
        return assess("C compiler", f"{finding}, and none needed")
    return assess("C compiler", finding, advice)


def _failure(command: Sequence[str]) -> str:
    """Say why a compiler does not translate an empty file; empty when it does."""
    try:
        done = subprocess.run(
            [*command, "-x", "c", "-S", "-o", "-", os.devnull],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {COMPILER_SECONDS} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0 and done.stdout:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}, and nothing was written"])[0]


def _folders(runs: Path, every: frozenset[str]) -> Iterator[Check]:
    if current_folder_removed():
        yield assess("current folder", "has been removed", "Change to one that exists.", every)
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
    if refused := refusal(cache):
        yield assess("cache folder", refused, "Training works without one, more slowly: nothing is kept.")
    elif cache is not None and (problem := unwritable(cache)):
        advice = "Choose another with the environment variable ACCL_CACHE, else training is slower: nothing is kept."
        yield assess("cache folder", f"{cache}: {problem}", advice)
    else:
        yield assess("cache folder", f"{cache} is writable")


def current_folder_removed() -> bool:
    """Return whether the folder that this process stands in is gone; torch cannot be loaded there."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def unwritable(folder: Path) -> str:
    """Say why a folder cannot hold runs; empty when it can.

    A temporary file is made and locked; the folder itself is not created.
    """
    place = folder
    try:
        place = _existing(folder)
        with tempfile.TemporaryFile(dir=place, prefix=".accl-doctor-") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kind of lock that DuckDB uses
    except OSError as error:
        where = "" if place == folder else f" in {place}"
        return f"cannot be written{where} ({error.strerror})"
    return ""


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is, or would be, on; empty when unknown."""
    try:
        place, parts = _existing(folder), psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):  # no /proc
        return ""
    mounts = [part for part in parts if place.is_relative_to(part.mountpoint)]
    # The longest path is the nearest mount; of several at one path the last hides the others.
    nearest = max(reversed(mounts), key=lambda part: len(Path(part.mountpoint).parts), default=None)
    return nearest.fstype if nearest else ""


def _existing(folder: Path) -> Path:
    """Return the folder or its nearest existing parent.

    Raises:
        OSError: there is none, because this process stands in a folder that was removed.
    """
    path = Path(os.path.realpath(os.path.expanduser(folder)))
    return next((place for place in (path, *path.parents) if os.path.lexists(place)), path)


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
