"""Threads that load kernels at the same time get each their own, and launch none that is not loaded yet."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from accl.kernels.triton.loading import guard_kernels, guard_modules

SOURCE = """
#include <Python.h>
static PyObject *launch(PyObject *self, PyObject *args) { return PyLong_FromLong(NUMBER); }
static PyMethodDef methods[] = {{"launch", launch, METH_VARARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, methods};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
"""


def load(name: str, path: str) -> ModuleType:
    """Load an extension module as Triton does."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of two extension modules with the same name, that return 0 and 1."""
    folder = tmp_path_factory.mktemp("launchers")
    paths = []
    for number in range(2):
        (source := folder / f"{number}.c").write_text(SOURCE.replace("NUMBER", str(number)), encoding="utf-8")
        path = folder / str(number) / "launcher.so"
        path.parent.mkdir()
        include = sysconfig.get_paths()["include"]
        subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(path)], check=True)
        paths.append(str(path))
    return paths


def test_a_launcher_stays_what_it_is_when_another_of_its_name_is_loaded_again(launchers: list[str]) -> None:
    plain = [load("launcher", path) for path in launchers]
    load("launcher", launchers[0])
    assert [module.launch() for module in plain] != [0, 1]  # or Python has mended it, and the guard can go
    build = SimpleNamespace(_load_module_from_path=load)
    guard_modules(build)
    guarded = [build._load_module_from_path("launcher", path) for path in launchers]
    for path in launchers:
        build._load_module_from_path("launcher", path)
        assert [module.launch() for module in guarded] == [0, 1]


def make_kernel_type(made: threading.Event, go_on: threading.Event) -> type:
    """Return a kernel that is loaded as Triton's are: its launcher comes first."""

    class Kernel:
        def __init__(self) -> None:
            self._run: Any = None
            self.function: Any = None
            self.loads = 0

        def _init_handles(self) -> None:
            if self.function is not None:
                return
            self._run = lambda function: function
            made.set()
            assert go_on.wait(20)
            self.loads += 1
            self.function = "loaded"

        @property
        def run(self) -> Any:
            if self._run is None:
                self._init_handles()
            return self._run

    return Kernel


@pytest.mark.parametrize("guarded", [False, True])
def test_a_launch_waits_for_a_kernel_that_another_thread_is_loading(guarded: bool) -> None:
    made, go_on, asked = threading.Event(), threading.Event(), threading.Event()
    kernel_type = make_kernel_type(made, go_on)
    if guarded:
        guard_kernels(kernel_type)
    kernel, launched = kernel_type(), []

    def launch() -> None:
        asked.set()
        run = kernel.run
        launched.append(run(kernel.function))

    threads = [threading.Thread(target=launch) for _ in range(2)]
    threads[0].start()
    assert made.wait(20)
    asked.clear()
    threads[1].start()
    assert asked.wait(20)
    if not guarded:
        threads[1].join(20)
        assert launched == [None]  # as it would fail on a GPU
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert launched == (["loaded"] * 2 if guarded else [None, "loaded"])
    assert kernel.loads == 1


def test_the_installed_triton_is_guarded() -> None:
    pytest.importorskip("triton")
    from triton.compiler.compiler import CompiledKernel
    from triton.runtime import build

    import accl.kernels.triton

    assert accl.kernels.triton.__doc__
    assert CompiledKernel.run.fget.__module__ == "accl.kernels.triton.loading"
    assert build._load_module_from_path.__module__ == "accl.kernels.triton.loading"
