"""The packages' borders: which may import which, how large a module may be, and that each says what it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

FORBIDDEN = {
    "audio": {"apache_beam", "endpoint", "emulator", "rows", "transforms", "pipeline"},
    "endpoint": {"apache_beam", "audio", "emulator", "rows", "transforms", "pipeline"},
    "emulator": {"apache_beam", "rows", "transforms", "pipeline"},
    "rows": {"apache_beam", "endpoint", "emulator", "transforms", "pipeline"},
    "transforms": {"emulator", "pipeline"},
    "pipeline": set(),
}
"""What the modules of a package never import, themselves or by way of others."""

MODULES = [path for package in FORBIDDEN for path in sorted((REPOSITORY / package).rglob("*.py"))]
MAX_LINES = 400


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all that is imported anywhere in a module, in functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_every_package_is_guarded() -> None:
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert packages - {"benchmarks", "tests", "templates"} == set(FORBIDDEN)


def test_every_package_is_installed_and_type_checked() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    tools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(tools["setuptools"]["packages"]) == set(FORBIDDEN)
    assert set(tools["mypy"]["packages"]) >= set(FORBIDDEN)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_keeps_to_its_side_of_the_border(path: Path) -> None:
    assert not imported(ast.parse(path.read_bytes())) & FORBIDDEN[path.relative_to(REPOSITORY).parts[0]]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_has_one_idea_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert docstring.split("\n\n")[0].rstrip().endswith((".", "?", "…"))


# Imports the modules one by one, and prints a line for each that brings what its package must not have.
_IMPORT = """
import importlib, sys
forbidden = set(sys.argv[1].split())
for name in sys.argv[2:]:
    importlib.import_module(name)
    found = forbidden & sys.modules.keys()
    if found:
        print(name, "brings", *sorted(found))
        forbidden -= found
"""


@pytest.mark.parametrize("package", [package for package, names in FORBIDDEN.items() if names])
def test_a_package_can_be_imported_without_what_is_beyond_its_border(package: str) -> None:
    names = [module_name(path) for path in MODULES if path.relative_to(REPOSITORY).parts[0] == package]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _IMPORT,
            " ".join(FORBIDDEN[package]),
            *(n for n in names if not n.endswith("__main__")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
