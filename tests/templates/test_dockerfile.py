"""The image holds what the lock says, what the project is made of, and nothing else of the folder that it is built from."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "templates"
DOCKERFILE = (TEMPLATES / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).strip().splitlines()
COPIED = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from=" not in line]
SOURCES = {source for sources in COPIED for source in sources}
PRIVATE = [
    "out/demo/embeddings.tfrecord",
    "key.json",
    ".git/config",
    ".venv/bin/python",
    "data/cough.wav",
    "templates/key.json",
]


def packages() -> list[str]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return list(settings["tool"]["setuptools"]["packages"])


def argument(name: str) -> str:
    (value,) = re.findall(rf"(?m)^ARG {name}=(.+)$", DOCKERFILE)
    return str(value)


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, TEMPLATES / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_beam_is_the_locked_one_in_all_stages() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    (locked,) = re.findall(r"(?m)^apache-beam==([0-9.]+) ", lock)
    assert argument("BEAM_VERSION") == locked
    images = [line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM ")]
    assert images == [
        "gcr.io/dataflow-templates-base/python311-template-launcher-base:${LAUNCHER_TAG}",
        "apache/beam_python3.11_sdk:${BEAM_VERSION}",
        "apache/beam_python3.11_sdk:${BEAM_VERSION}",
    ]


def test_the_launchers_tag_has_a_date() -> None:
    assert re.fullmatch(r"20[0-9]{6}[_-](RC|rc)[0-9]{2}", argument("LAUNCHER_TAG"))


def test_the_image_has_all_packages_and_what_they_are_built_from() -> None:
    assert {
        *packages(),
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "requirements.lock",
        "templates/main.py",
    } == SOURCES
    assert all((REPOSITORY / source).exists() for source in SOURCES)


def test_packages_are_checked_by_their_hashes_and_with_each_other() -> None:
    runs = [line for line in INSTRUCTIONS if line.startswith("RUN ")]
    for command in re.findall(r"pip (?:install|wheel) [^&]+", " ".join(runs)):
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command
    assert "pip check" in runs[-1]


def test_launcher_and_workers_find_their_own() -> None:
    assert "ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" in INSTRUCTIONS
    assert "REQUIREMENTS_FILE=" not in DOCKERFILE
    assert "SETUP_FILE=" not in DOCKERFILE
    launcher = "/opt/google/dataflow/python_template_launcher"
    assert f"COPY --from=launcher {launcher} {launcher}" in INSTRUCTIONS
    assert INSTRUCTIONS[-1] == 'ENTRYPOINT ["/opt/apache/beam/boot"]'


def excluded_by_docker(path: str) -> bool:
    """Whether .dockerignore, in the few forms that are used here, keeps a path out of the build."""
    excluded = False
    for line in (TEMPLATES / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = Path(path).parts
        beginnings = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if any(
            fnmatch.fnmatchcase(part, pattern) or fnmatch.fnmatchcase(part, pattern.replace("**/", "*/"))
            for part in beginnings
        ):
            excluded = not line.startswith("!")
    return excluded


def test_docker_sees_what_is_copied_and_nothing_that_is_not() -> None:
    for source in SOURCES:
        assert not excluded_by_docker(source if "." in source or source.isupper() else f"{source}/__init__.py"), source
    for path in [*PRIVATE, "audio/__pycache__/clips.pyc"]:
        assert excluded_by_docker(path), path


@pytest.fixture(scope="module")
def sent_to_cloud_build(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What gcloud itself would send of this folder, with private files in it."""
    if (gcloud := shutil.which("gcloud")) is None:
        pytest.skip("needs gcloud")
    folder = tmp_path_factory.mktemp("repository")
    for source in [*SOURCES, "templates/Dockerfile"]:
        origin, target = REPOSITORY / source, folder / source
        if origin.is_dir():
            target.mkdir(parents=True)
            (target / "__init__.py").touch()
            (target / "__pycache__").mkdir()
            (target / "__pycache__" / "x.pyc").touch()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    for path in PRIVATE:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    shutil.copy(TEMPLATES / "gcloudignore", folder / ".gcloudignore")
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path_factory.mktemp("gcloud"))}
    done = subprocess.run(
        [gcloud, "meta", "list-files-for-upload", folder],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(done.stdout.split())


def test_cloud_build_gets_what_is_copied_and_nothing_that_is_not(sent_to_cloud_build: set[str]) -> None:
    for source in [*SOURCES, "templates/Dockerfile"]:
        assert source in sent_to_cloud_build or f"{source}/__init__.py" in sent_to_cloud_build, source
    assert not [path for path in sent_to_cloud_build if "__pycache__" in path]
    assert not sent_to_cloud_build & set(PRIVATE)


def test_cloud_build_builds_this_dockerfile_and_pushes_the_image() -> None:
    build = yaml.safe_load((TEMPLATES / "cloudbuild.yaml").read_text(encoding="utf-8"))
    (step,) = build["steps"]
    assert step["args"] == [
        "build",
        "--file=templates/Dockerfile",
        "--build-arg=LAUNCHER_TAG=${_LAUNCHER_TAG}",
        "--tag=${_IMAGE}",
        ".",
    ]
    assert step["env"] == ["DOCKER_BUILDKIT=1"]  # RUN --mount
    assert build["images"] == ["${_IMAGE}"]
