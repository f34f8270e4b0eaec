"""`accl bench train`: accl's training step against transformers' Trainer, and against the device itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec

from accl.bench.comparison import Comparison
from accl.bench.protocol import Candidate
from accl.bench.report import Report
from accl.bench.results import report_rows
from accl.config import resolve
from accl.errors import ConfigError

# Cores per worker from which they get ready beside each other.
CORES_EACH = 3


@dataclass(frozen=True)
class Options:
    """The options of `accl bench train`, whose help describes them."""

    recipe: str
    profile: str
    overrides: list[str]
    steps: int
    warmup: int
    rounds: int
    backends: list[str]
    arms: list[str]
    peer: list[str]
    compile_warmup: int
    limit: float
    min_tokens: int
    together: bool
    apart: bool
    output: str | None


def candidates(options: Options) -> list[Candidate]:
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


def measure(options: Options) -> Report:
    """Run the comparison that was asked for, with progress on stderr.

    Raises:
        AcclError: accl itself could not be measured.
    """
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {words}", file=sys.stderr, flush=True)  # noqa: T201

    chosen = candidates(options)
    with ExitStack() as stack:
        # A write to a worker that has ended must raise: the command line lets the signal end this process.
        stack.callback(signal.signal, signal.SIGPIPE, signal.signal(signal.SIGPIPE, signal.SIG_IGN))
        comparison = Comparison(options.limit, say, stack)
        first, others = (chosen[:1], chosen[1:]) if options.apart else (chosen, [])
        for group in _groups(first):
            comparison.add(group)
        rates = comparison.rates()
        say(f"{rates.device}: {rates.flops / 1e12:.3g} TFLOP/s in {rates.precision}, {rates.bytes / 1e9:.4g} GB/s")
        comparison.rounds(options.rounds)
        pairs = comparison.pairs(options.rounds) if options.together else []
        for candidate in others:
            comparison.remove(comparison.results[-1])
            comparison.add([candidate])
            comparison.rounds(options.rounds)
    settings = {**asdict(options), **comparison.results[0].description, "rates": asdict(rates)}
    return Report.create("train", settings, report_rows(comparison.results, rates, pairs))


def _groups(chosen: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that get ready beside each other.

    Compiling is timed, so it has the machine to itself; on few cores workers would slow each other.
    """
    beside = [candidate for candidate in chosen if not candidate.compile]
    alone = [[candidate] for candidate in chosen if candidate.compile]
    enough = (os.cpu_count() or 1) >= CORES_EACH * len(beside)
    return [*([beside] if enough else [[candidate] for candidate in beside]), *alone]
