"""Kernels that threads of one process load and launch at the same time, made safe; Triton leaves both of these open.

- Before Triton 3.7 every signature of a kernel has a launcher, and all these extension modules have one name. One that
  is loaded for a second time is put into the module that bears the name, which is a launcher of another signature. A
  thread that takes its function from there only now launches with wrong arguments ("function takes exactly 34 arguments
  (39 given)"; as many of another type are not noticed at all).
- A kernel has its launcher before it is loaded. A thread that launches it in between has nothing to launch.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

_lock = threading.Lock()


def guard_loading() -> None:
    """Let each module be loaded alone, and each kernel wholly before it is launched, in all threads; call it once."""
    try:
        from triton.compiler.compiler import CompiledKernel
        from triton.runtime import build
    except ImportError:  # a machine without GPUs
        return
    guard_modules(build)
    guard_kernels(CompiledKernel)


def guard_modules(build: Any) -> None:
    """Let the loader of ``build`` hand out what a module holds, as it was right after it was loaded."""
    load = getattr(build, "_load_module_from_path", None)
    if load is None:  # before Triton 3.4
        return

    def load_alone(name: str, path: str) -> SimpleNamespace:
        with _lock:
            return SimpleNamespace(**vars(load(name, path)))

    build._load_module_from_path = load_alone


def guard_kernels(kernel_type: Any) -> None:
    """Let launches of a kernel of this type wait while another thread loads it."""
    load = kernel_type._init_handles

    def load_alone(kernel: Any) -> None:
        # One for each kernel: launchers are compiled several at a time.
        with vars(kernel).setdefault("_loading", threading.Lock()):
            load(kernel)

    def run(kernel: Any) -> Any:
        if kernel.function is None:
            kernel._init_handles()
        return kernel._run

    kernel_type._init_handles = load_alone
    kernel_type.run = property(run)
