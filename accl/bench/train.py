"""``python -m accl.bench.train``: accl's training step against transformers' Trainer, and against the device itself."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from accl.bench.comparison import Comparison
from accl.bench.protocol import Candidate
from accl.bench.report import Report, Row, origin
from accl.bench.results import Result, report_rows
from accl.bench.roofline import Rates
from accl.bench.tables import terminal
from accl.config import DEFAULT_PROFILE, available, resolve
from accl.errors import AcclError, ConfigError

PEERS = ("eager", "compile")
# Cores per worker from which they get ready beside each other.
CORES_EACH = 3


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments and options."""
    parser = argparse.ArgumentParser(
        prog="accl bench train",
        description="Time accl's training step, in turns with transformers' Trainer on the same questions.",
        epilog="Example: accl bench train baseline --profile demo --peer eager --steps 100",
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="baseline", help="what accl trains (default: baseline, which the peers train too)")
    add("--profile", "-p", default=DEFAULT_PROFILE, help=f"{', '.join(available('profiles'))}, or a YAML file")
    add("--set", "-s", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override any value")
    add("--steps", type=_positive, default=200, help="steps of a timed window")
    add("--warmup", type=_positive, default=30, help="untimed steps before the first window")
    add("--rounds", type=_positive, default=3, help="timed windows of each candidate")
    backends = "values of train.backend for accl (default: auto)"
    add("--backends", "--paths", type=_names, default=["auto"], metavar="A,B", help=backends)
    add("--arms", type=_names, default=[], metavar="A,B", help="recipes to time in turns, and what tracking costs")
    add("--peer", action="append", choices=PEERS, default=[], help="Trainer as it is, or with torch_compile=True")
    compiled = "untimed steps of a compiled peer, at least"
    add("--compile-warmup", type=_positive, default=1, metavar="STEPS", help=compiled)
    add("--limit", type=float, default=300, metavar="SECONDS", help="for building and warming up, and for a window")
    add("--min-tokens", type=int, default=0, metavar="N", help="leave shorter training questions out")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--together", action="store_true", help="time two processes of accl at once as well")
    either.add_argument(
        "--apart", action="store_true", help="one candidate after the other: no turns, but memory for one at a time"
    )
    add("--output", "-o", type=Path, metavar="FILE.json", help="write the report as JSON too")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def candidates(options: argparse.Namespace) -> list[Candidate]:
    """The candidates, accl's first.

    Raises:
        ConfigError: the recipe, the profile or an override is wrong, or the peers' Trainer lacks a package.
    """

    def candidate(name: str, recipe: str, backend: str, warmup: int) -> Candidate:
        config = resolve(recipe, options.profile, [*options.overrides, f"train.backend={backend}"]).config
        return Candidate(name, config, options.steps, warmup, backend, min_tokens=options.min_tokens)

    chosen = []
    for backend in options.backends:
        chosen += [
            candidate(f"accl {recipe} ({backend})", recipe, backend, options.warmup)
            for recipe in options.arms or [options.recipe]
        ]
        if options.arms:
            chosen.append(replace(chosen[-1], name=f"{chosen[-1].name}, no tracking", tracking=False))
    if options.peer and find_spec("accelerate") is None:
        raise ConfigError(
            "transformers' Trainer needs the package accelerate, which is not installed.",
            "Type: pip install 'accl[bench]'",
        )
    for peer in dict.fromkeys(options.peer):
        compiled = peer == "compile"
        warmup = max(options.warmup, options.compile_warmup) if compiled else options.warmup
        # The reference leaves the encoder as transformers made it.
        own = candidate(f"Trainer {peer}", options.recipe, "reference", warmup)
        chosen.append(replace(own, backend="", compile=compiled))
    return chosen


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[list[Result], Rates, list[Row]]:
    """Run the comparison that was asked for: each candidate's windows, the device's rates, the report's rows.

    Raises:
        AcclError: accl itself could not be measured.
    """
    chosen = candidates(options)
    with ExitStack() as stack:
        comparison = Comparison(options.limit, say, stack)
        first, others = (chosen[:1], chosen[1:]) if options.apart else (chosen, [])
        for group in _groups(first):
            comparison.add(group)
        rates = comparison.rates()
        say(f"{rates.device}: {rates.flops / 1e12:.3g} TFLOP/s in {rates.precision}, {rates.bytes / 1e9:.4g} GB/s")
        comparison.rounds(options.rounds)
        pairs = comparison.pairs(options.rounds) if options.together else []
        for candidate in others:
            comparison.remove(comparison.results[-1].name)
            comparison.add([candidate])
            comparison.rounds(options.rounds)
    return comparison.results, rates, report_rows(comparison.results, rates, pairs)


def _groups(chosen: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that get ready beside each other.

    Compiling is timed, so it has the machine to itself; on few cores workers would slow each other.
    """
    beside = [candidate for candidate in chosen if not candidate.compile]
    alone = [[candidate] for candidate in chosen if candidate.compile]
    enough = (os.cpu_count() or 1) >= CORES_EACH * len(beside)
    return [*([beside] if enough else [[candidate] for candidate in beside]), *alone]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = make_parser().parse_args(arguments)
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {words}", file=sys.stderr, flush=True)  # noqa: T201

    try:
        results, rates, rows = measure(options, say)
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        report = Report.create("train", {**settings, **results[0].description, "rates": vars(rates)}, rows)
        if options.output is not None:
            report.write(options.output)
    except AcclError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(terminal([result.name for result in results], rows))  # noqa: T201
    print(origin(report))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
