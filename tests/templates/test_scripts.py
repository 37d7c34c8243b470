"""The scripts say exactly these commands, and what is missing or wrong before any of them runs."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "templates"
DIGEST = "sha256:" + "1f" * 32
IMAGE = "us-west1-docker.pkg.dev/p/hear/pipeline"

# Keeps its name and arguments, and answers as `gcloud artifacts docker images describe` does.
RECORDER = """#!/bin/sh
{ printf '%s\\0' "${0##*/}" "$@"; printf '\\001'; } >> "$RECORD"
case "$*" in *"images describe"*) echo "$DIGEST" ;; esac
case "$*" in *"$FAILING"*) exit 7 ;; esac
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str
    commands: list[list[str]]


class Machine:
    """A PATH on which gcloud and docker are stand-ins that record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("gcloud", "docker"):
            (folder / name).write_text(RECORDER)
            (folder / name).chmod(0o755)

    def run(
        self, script: str, arguments: Sequence[str], *, digest: str = DIGEST, failing: str = "nothing fails"
    ) -> Done:
        record = self._folder / "record"
        record.unlink(missing_ok=True)
        environment = {
            "PATH": f"{self._folder}:/usr/bin:/bin",
            "RECORD": str(record),
            "DIGEST": digest,
            "FAILING": failing,
        }
        done = subprocess.run(
            [TEMPLATES / script, *arguments],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = record.read_text().split("\1")[:-1] if record.exists() else []
        return Done(done.returncode, done.stdout, done.stderr, [call.split("\0")[:-1] for call in calls])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def options(given: dict[str, str | None]) -> list[str]:
    return [text for name, value in given.items() if value is not None for text in (f"--{name}", value)]


BUILD: dict[str, str | None] = {"project": "p", "image": IMAGE, "template": "gs://b/t/hear.json", "tag": "v1"}
LAUNCH: dict[str, str | None] = {
    "project": "p",
    "region": "us-west1",
    "template": "gs://b/t/hear.json",
    "image": f"{IMAGE}@{DIGEST}",
    "worker-account": "worker@p.iam.gserviceaccount.com",
    "staging-location": "gs://b/staging",
    "job-name": "study",
}
LAUNCHED = [
    *("gcloud", "dataflow", "flex-template", "run", "study", "--project=p", "--region=us-west1"),
    "--template-file-gcs-location=gs://b/t/hear.json",
    "--service-account-email=worker@p.iam.gserviceaccount.com",
    "--staging-location=gs://b/staging",
]
DESCRIBED = [
    *("gcloud", "artifacts", "docker", "images", "describe", f"{IMAGE}:v1"),
    *("--project=p", "--format=value(image_summary.digest)"),
]
WRITTEN = [
    *("gcloud", "dataflow", "flex-template", "build", "gs://b/t/hear.json", "--project=p"),
    *(f"--image={IMAGE}@{DIGEST}", "--sdk-language=PYTHON", f"--metadata-file={TEMPLATES}/metadata.json"),
]


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    scripts = sorted(TEMPLATES.rglob("*.sh"))
    assert len(scripts) >= 3
    done = subprocess.run(
        [shellcheck, "--external-sources", *scripts],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", ["build.sh", "launch.sh"])
def test_scripts_are_executable_and_explain_themselves(script: str, machine: Machine) -> None:
    assert os.access(TEMPLATES / script, os.X_OK)
    done = machine.run(script, ["--help"])
    assert (done.status, done.err, done.commands) == (0, "", [])
    assert done.out.startswith(f"usage: templates/{script} --project PROJECT ")


def test_cloud_build_makes_the_image_and_the_template_names_its_digest(machine: Machine) -> None:
    done = machine.run("build.sh", options(BUILD))
    assert (done.status, done.err) == (0, "")
    assert done.commands == [
        [
            *("gcloud", "builds", "submit", str(REPOSITORY), "--project=p"),
            f"--config={TEMPLATES}/cloudbuild.yaml",
            "--ignore-file=templates/gcloudignore",
            f"--substitutions=_IMAGE={IMAGE}:v1,_LAUNCHER_TAG=20230622_RC00",
        ],
        DESCRIBED,
        WRITTEN,
    ]
    assert done.out == f"image: {IMAGE}@{DIGEST}\ntemplate: gs://b/t/hear.json\n"


def test_cloud_build_as_another_account(machine: Machine) -> None:
    more = {
        "build-account": "b@p.iam.gserviceaccount.com",
        "build-staging": "gs://b/source",
        "launcher-tag": "20260112_RC00",
    }
    submit = machine.run("build.sh", options({**BUILD, **more})).commands[0]
    assert submit[-3:] == [
        f"--substitutions=_IMAGE={IMAGE}:v1,_LAUNCHER_TAG=20260112_RC00",
        "--service-account=projects/p/serviceAccounts/b@p.iam.gserviceaccount.com",
        "--gcs-source-staging-dir=gs://b/source",
    ]


def test_docker_makes_the_image(machine: Machine) -> None:
    done = machine.run("build.sh", options({**BUILD, "builder": "docker"}))
    assert done.status == 0
    assert done.commands == [
        [
            *("docker", "build", "--platform=linux/amd64", f"--file={TEMPLATES}/Dockerfile"),
            *("--build-arg=LAUNCHER_TAG=20230622_RC00", f"--tag={IMAGE}:v1", str(REPOSITORY)),
        ],
        ["docker", "push", f"{IMAGE}:v1"],
        DESCRIBED,
        WRITTEN,
    ]


@pytest.mark.parametrize("failing", ["builds submit", "images describe", "flex-template build"])
def test_a_step_that_fails_is_the_last(failing: str, machine: Machine) -> None:
    done = machine.run("build.sh", options(BUILD), failing=failing)
    assert done.status == 7
    assert failing in " ".join(done.commands[-1])
    assert "image:" not in done.out


def test_no_template_without_a_digest(machine: Machine) -> None:
    done = machine.run("build.sh", options(BUILD), digest="")
    assert done.status == 1
    assert done.err == f"build.sh: error: the digest of {IMAGE}:v1 is unknown: got ''\n"
    assert done.commands[-1] == DESCRIBED


def test_a_launch_with_the_least(machine: Machine) -> None:
    done = machine.run(
        "launch.sh", [*options(LAUNCH), "--", "--input=gs://b/in", "--endpoint=research", "--output=gs://b/o"]
    )
    assert (done.status, done.out, done.err) == (0, "", "")
    parameters = f"sdk_container_image={IMAGE}@{DIGEST}<0>input=gs://b/in<0>endpoint=research<0>output=gs://b/o"
    assert done.commands == [[*LAUNCHED, "--temp-location=gs://b/staging", f"--parameters=^<0>^{parameters}"]]


def test_a_launch_with_everything(machine: Machine) -> None:
    more = {
        "temp-location": "gs://b/tmp",
        "network": "n",
        "subnetwork": "regions/us-west1/subnetworks/s",
        "machine-type": "n2-standard-2",
        "num-workers": "3",
        "labels": "team=cough,study=a",
        "launch-as": "launcher@p.iam.gserviceaccount.com",
    }
    given = [*options({**LAUNCH, **more}), "--private-ips", "--", "--overwrite", "--no_probe=false"]
    (command,) = machine.run("launch.sh", given).commands
    assert command == [
        *LAUNCHED,
        "--temp-location=gs://b/tmp",
        "--network=n",
        "--subnetwork=regions/us-west1/subnetworks/s",
        "--disable-public-ips",
        "--worker-machine-type=n2-standard-2",
        "--num-workers=3",
        "--additional-user-labels=team=cough,study=a",
        "--impersonate-service-account=launcher@p.iam.gserviceaccount.com",
        f"--parameters=^<0>^sdk_container_image={IMAGE}@{DIGEST}<0>overwrite=true<0>no_probe=false",
    ]


def test_what_separates_parameters_is_in_none_of_them(machine: Machine) -> None:
    given = ["--input=gs://b/a,b=c^d e'f<0>", "--uri_template=<1>{uri}<", "--model_id=0>"]
    (command,) = machine.run("launch.sh", [*options(LAUNCH), "--", *given]).commands
    separator, _, parameters = command[-1].removeprefix("--parameters=^").partition("^")
    assert parameters.split(separator)[1:] == ["input=gs://b/a,b=c^d e'f<0>", "uri_template=<1>{uri}<", "model_id=0>"]


@pytest.mark.parametrize(("script", "given"), [("build.sh", BUILD), ("launch.sh", LAUNCH)])
def test_a_dry_run_says_what_would_run(script: str, given: dict[str, str | None], machine: Machine) -> None:
    ran = machine.run(script, options(given))
    dry = machine.run(script, [*options(given), "--dry-run"])
    assert (dry.status, dry.err, dry.commands) == (0, "", [])
    said = [shlex.split(line) for line in dry.out.replace("@DIGEST", f"@{DIGEST}").splitlines()]
    assert said == ran.commands


@pytest.mark.parametrize(
    ("script", "given", "option"),
    [
        *[("build.sh", BUILD, option) for option in ("project", "image", "template")],
        *[("launch.sh", LAUNCH, option) for option in LAUNCH if option != "job-name"],
    ],
)
def test_what_is_missing_is_named_with_an_example(
    script: str, given: dict[str, str | None], option: str, machine: Machine
) -> None:
    done = machine.run(script, options({**given, option: None}))
    assert (done.status, done.out, done.commands) == (2, "", [])
    assert done.err.startswith(f"{script}: error: --{option} is missing: expected for example --{option} ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("build.sh", options({**BUILD, "image": f"{IMAGE}:v1"}), "--image is '"),
        ("build.sh", options({**BUILD, "template": "hear.json"}), "--template is 'hear.json'"),
        ("build.sh", options({**BUILD, "tag": "a b"}), "--tag is 'a b'"),
        ("build.sh", options({**BUILD, "builder": "kaniko"}), "--builder is 'kaniko': expected cloud-build or docker"),
        ("build.sh", [*options(BUILD), "--projet", "p"], "unknown option '--projet'"),
        ("build.sh", ["--project"], "--project has no value"),
        ("build.sh", ["--project", "--image", IMAGE], "--project has no value"),
        ("build.sh", ["--project", ""], "--project has no value"),
        ("launch.sh", options({**LAUNCH, "image": f"{IMAGE}:v1"}), "--image is '"),
        (
            "launch.sh",
            options({**LAUNCH, "staging-location": "/tmp"}),
            "--staging-location is '/tmp': expected gs://...",
        ),
        ("launch.sh", options({**LAUNCH, "temp-location": "gs://"}), "--temp-location is 'gs://': expected gs://..."),
        ("launch.sh", [*options(LAUNCH), "--input=gs://b/in"], "the pipeline's own options follow --"),
        ("launch.sh", [*options(LAUNCH), "--", "gs://b/in"], "'gs://b/in' behind -- is no option"),
        ("launch.sh", [*options(LAUNCH), "--", "--inptu=gs://b"], "--inptu is no parameter of the template"),
        ("launch.sh", [*options(LAUNCH), "--", "--plan"], "--plan is no parameter of the template"),
        ("launch.sh", [*options(LAUNCH), "--", "--limit="], "--limit is empty"),
        ("launch.sh", [*options(LAUNCH), "--", "--limit=1", "--limit=2"], "--limit is given twice"),
        ("launch.sh", [*options(LAUNCH), "--", "--sdk_container_image=x"], "--sdk_container_image is given twice"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_runs(
    script: str, arguments: list[str], said: str, machine: Machine
) -> None:
    done = machine.run(script, arguments)
    assert (done.status, done.out, done.commands) == (2, "", [])
    assert said in done.err
    assert done.err.count("\n") == 1
