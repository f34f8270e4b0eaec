"""Compiling kernels several at a time, where one launch after the other would compile them one after the other.

At a first start on a machine some forty kernels are compiled, each with a launcher in C, in about half a second each.
Triton's passes, its assembler and the C compiler leave Python's lock to others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import torch

try:
    from triton import knobs
except ImportError:  # before Triton 3.4
    knobs = None

# Compilers at work at once, at most: beyond that Python's lock is what they wait for.
MOST_THREADS = 16
_lock = threading.Lock()


@contextmanager
def compile_concurrently(launch: Collection[str] = ()) -> Iterator[Collection[object]]:
    """Compile, at the end of the block, the kernels that this thread tried to launch in it and that were not compiled.

    These launches are left out, so tensors that they would have written hold anything; others take place. So a block
    takes a step without effect, and a second such step finds everything compiled. Other threads launch as ever, but
    for another one that compiles so, which waits.

    Args:
        launch: names of kernels that are compiled and launched at once: those whose results are indices.

    Yields:
        what was left out so far; nothing where all was compiled before, and the step has taken place.
    """
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    if knobs is None:
        yield found
        return
    thread = threading.get_ident()

    def note(**call: Any) -> bool:
        function = call["fn"].jit_function
        if threading.get_ident() != thread or function.fn.__name__ in launch:
            return False
        found[function.fn.__qualname__, call["key"]] = function, call["compile"]["specialization_data"]
        return True

    with _lock:
        before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, note
        try:
            yield found
        finally:
            knobs.runtime.jit_cache_hook = before
        if not found:
            return
        device = torch.cuda.current_device()

        def prepare(function: Any, specialization: str) -> None:
            torch.cuda.set_device(device)
            function.preload(specialization).run  # noqa: B018 - the property loads the kernel and compiles its launcher

        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            for done in [pool.submit(prepare, *each) for each in found.values()]:
                done.result()


def prepare_compiler() -> None:
    """Let Triton read its own files, some 100 MB, for the keys of its cache: it would do so before its first kernel."""
    with suppress(ImportError):  # elsewhere in other versions
        from triton.runtime.cache import triton_key

        triton_key()
