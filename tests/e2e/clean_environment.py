"""An environment as a worker's: this project installed from its source distribution, and nothing of this folder in reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.e2e.running import REPOSITORY

_KEPT = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt")


def copy_project(folder: Path) -> Path:
    """Copies what a source distribution is made of: it leaves files where it is made. Returns the folder."""
    folder.mkdir(parents=True)
    for package in sorted(path.parent for path in REPOSITORY.glob("*/__init__.py")):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _KEPT:
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def build_distribution(folder: Path) -> Path:
    """Builds the source distribution as Beam does for --setup_file; its file."""
    _run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", folder / "dist", cwd=copy_project(folder / "copy"))
    (built,) = (folder / "dist").iterdir()
    return built


def make_environment(folder: Path, distribution: Path) -> Path:
    """Installs the distribution into a new environment, offline; the environment's Python.

    The packages that it depends on are those of the environment that runs the tests.
    """
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    shared = dict.fromkeys([sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]])
    (site / "shared.pth").write_text("\n".join(shared))
    install = ("install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", distribution)
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install, cwd=folder)
    return python


def without_this_folder() -> dict[str, str]:
    """The environment's variables, but for those by which Python finds modules elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
