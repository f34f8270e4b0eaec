"""Reports of measurements: rows of figures with date, commit, device and versions."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import accl
from accl.errors import ConfigError
from accl.launch.gpus import gpus
from accl.launch.machine import cores

Row = dict[str, Any]

PACKAGES = ("torch", "transformers", "duckdb", "textual")


@dataclass(frozen=True)
class Report:
    """The results of one benchmark.

    Attributes:
        name: ``store``, ``tui``, ``cli``, ``statistics`` or ``train``.
        date: time in UTC, ISO 8601.
        commit: commit of the tree that accl was imported from, ``-dirty`` where it was changed; None without a clone.
        device: processor and cores, then the GPUs.
        versions: versions of Python and of the packages that the numbers depend on.
        settings: options of the benchmark.
        rows: figures, each with ``what``, ``value``, ``unit``, ``spread`` (the width of the middle half of the samples,
            in the same unit; None for a single one) and ``target`` (the most that the value may be; None without one).
            A row may have ``least`` (the least that it may be) and ``error`` (its Monte Carlo standard error, where it
            is simulated); any other key is free.
    """

    name: str
    date: str
    commit: str | None
    device: str
    versions: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def create(cls, name: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> Report:
        """Make a report of rows measured just now on this machine."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(name, now, commit(), device(), versions(), dict(settings), list(rows))

    def write(self, path: Path) -> None:
        """Write the report as JSON.

        Raises:
            ConfigError: the file cannot be written.
        """
        content = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        try:
            path.write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}).") from error

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report that `write` wrote.

        Raises:
            ConfigError: the file cannot be read, or is something else.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is not a report of accl bench.", "Make one with --output FILE.json") from error


def row(what: str, samples: Sequence[float], unit: str, target: float | None = None, **more: Any) -> Row:
    """Make a row with the median of ``samples`` and the width of their middle half; ``more`` are free keys."""
    value = statistics.median(samples) if samples else None
    spread = None
    if len(samples) > 1:
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        spread = high - low
    return {"what": what, "value": value, "unit": unit, "spread": spread, "target": target, **more}


def missed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose value is above their target or below their least, for figures that those limit."""

    def outside(row: Row) -> bool:
        least, most = row.get("least"), row["target"]
        return (least is not None and row["value"] < least) or (most is not None and row["value"] > most)

    return [row for row in rows if outside(row)]


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def figure(value: float | None, unit: str = "") -> str:
    """Format a value with three significant digits and its unit."""
    if value is None:
        return "–"
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def origin(report: Report) -> str:
    """Date, commit, device and versions of a report in one line."""
    used = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"{report.date[:10]}, commit {report.commit or 'unknown'}, {report.device}; {used}."


def commit() -> str | None:
    """The value of `Report.commit` for this process."""
    if "ACCL_COMMIT" in os.environ:  # for a tree that was copied without its history
        return os.environ["ACCL_COMMIT"]
    source = Path(accl.__file__).resolve().parents[1]
    if (source / ".git").exists():  # not an installed package, perhaps inside the clone of something else
        command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
        with suppress(OSError, subprocess.TimeoutExpired):  # no git on this machine, or a very slow disk
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None


def device() -> str:
    """The value of `Report.device` for this machine."""
    count = cores()
    names = Counter(gpu.name for gpu in gpus())
    cards = [f"{count} × {name}" if count > 1 else name for name, count in names.items()]
    return ", ".join([f"{_processor()}, {count} core{'s' if count > 1 else ''}", *cards])


def _processor() -> str:
    with suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The value of `Report.versions`; a package that is not installed is left out."""
    installed = {"python": platform.python_version(), "accl": accl.__version__}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
