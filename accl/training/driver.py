"""The CUDA driver, called without torch: it is there before torch is."""

from __future__ import annotations

import ctypes
import threading


def begin_context(device: str) -> None:
    """Create the context of the first GPU in a background thread, unless ``device`` is ``cpu``.

    It takes as long as many an import, and no Python meanwhile; torch finds it made. Without a GPU nothing happens.
    """
    if device != "cpu":
        threading.Thread(target=_create_context, name="cuda-context", daemon=True).start()


def _create_context() -> None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    # What fails here fails again at torch's first use, and is reported there.
    if driver.cuInit(0) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
