"""An installed accl has everything it needs, and says of every dependency what it is for."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import accl
from accl.config import available, configs_folder

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_source_distribution_holds_what_tests_and_readme_name(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE"} <= names
    assert "requirements.txt" in names
    assert {"tests/test_packaging.py", "configs/base.yaml", "accl/store/README.md", ".github/confusion.svg"} <= names


def test_wheel_holds_both_packages_with_all_their_files_and_the_recipes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    kept = {".py", ".c", ".h", ".yaml", ".tcss", ".typed"}
    expected = {
        str(path.relative_to(ROOT))
        for package in ("accl", "tui")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kept
    }
    expected |= {f"accl/configs/{path.relative_to(configs_folder())}" for path in configs_folder().rglob("*.yaml")}
    needed = {
        "accl/data/terms.yaml",
        "accl/kernels/cpu/c/attention.c",
        "accl/configs/recipes/full.yaml",
        "accl/py.typed",
        "tui/py.typed",
    }
    assert needed <= expected
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "runs/", "configs/"))]


def test_accl_from_the_wheel_finds_its_recipes_anywhere(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import accl\n"
        "from accl.config import available, configs_folder, resolve\n"
        "from importlib.metadata import version\n"
        "print(accl.__file__, configs_folder(), resolve('full', 'demo').config.model.name, *available('recipes'),"
        " version('accl') == accl.__version__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(site)], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(site / "accl/__init__.py"),
        str(site / "accl/configs"),
        "random:tiny",
        *available("recipes"),
        "True",
    ]


def test_every_dependency_has_one_line_that_says_why() -> None:
    lines = [line.strip() for line in PYPROJECT.splitlines() if re.match(r'\s+"[A-Za-z].*",', line)]
    for requirement in [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]:
        (line,) = (line for line in lines if line.startswith(f'"{requirement}"'))
        assert re.search(r",\s+# \w.{3,}", line), f"no reason given for {requirement}"


def test_versions_of_accl_agree() -> None:
    assert PROJECT["version"] == accl.__version__ == metadata.version("accl")


def test_lock_pins_every_dependency_and_all_they_bring_within_the_ranges_asked_for() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()  # type: ignore[union-attr]
            pins[canonicalize_name(name)] = version
    assert pins["torch"] == "2.13.0"

    todo = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]
    seen = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, *wanted.extras) in seen or re.match(r"nvidia-(?!ml-py)|cuda-|triton$", name):
            continue  # torch itself names the CUDA packages of its build
        seen.add((name, *wanted.extras))
        assert name in pins, f"{name} is not in requirements.txt"
        assert wanted.specifier.contains(pins[name]), f"{wanted} does not allow {pins[name]}"
        for text in metadata.requires(name) or []:
            brought = Requirement(text)
            extras = wanted.extras or {""}
            if brought.marker is None or any(brought.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(brought)
