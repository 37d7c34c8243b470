"""What the real gcloud makes of the scripts and of the guide's commands: it takes them, and asks Dataflow for the right thing."""

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud.dataflow_v1beta3.types import (
    ContainerSpec,
    FlexTemplateRuntimeEnvironment,
    LaunchFlexTemplateRequest,
    TemplateMetadata,
)

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "templates"
GCLOUD = shutil.which("gcloud")
IMAGE = "us-west1-docker.pkg.dev/p/hear/pipeline@sha256:" + "1f" * 32

pytestmark = pytest.mark.skipif(GCLOUD is None, reason="needs gcloud")


class Dataflow(http.server.BaseHTTPRequestHandler):
    """Keeps what it is asked, and answers that a job was made."""

    asked: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path.partition("?")[0], body))
        answer = json.dumps({"job": {"id": "1", "createTime": "2026-01-01T00:00:00Z"}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def dataflow() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A stand-in's address, and what it was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []
    handler = type("Asked", (Dataflow,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A gcloud that knows nobody, and has a token that opens nothing."""
    folder = tmp_path_factory.mktemp("gcloud")
    (folder / "token").write_text("no-token")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CLOUDSDK_CONFIG": str(folder / "config"),
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_launch_is_what_was_asked_for(
    dataflow: tuple[str, list[tuple[str, dict[str, Any]]]], environment: dict[str, str]
) -> None:
    address, asked = dataflow
    given = [
        *(
            "--project",
            "p",
            "--region",
            "us-west1",
            "--template",
            "gs://b/hear.json",
            "--image",
            IMAGE,
            "--job-name",
            "study",
        ),
        *("--worker-account", "worker@p.iam.gserviceaccount.com", "--staging-location", "gs://b/staging"),
        *("--temp-location", "gs://b/temp", "--subnetwork", "regions/us-west1/subnetworks/s", "--private-ips"),
        *("--machine-type", "e2-standard-2", "--num-workers", "3", "--labels", "study=a,team=b", "--"),
        *("--input=gs://b/a, b=c^<0>/*.wav", "--overwrite", "--endpoint=research", "--no_probe=false"),
    ]
    run([str(TEMPLATES / "launch.sh"), *given], {**environment, "CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": address})
    ((path, body),) = asked
    assert path == "/v1b3/projects/p/locations/us-west1/flexTemplates:launch"
    launch = LaunchFlexTemplateRequest.from_json(json.dumps(body), ignore_unknown_fields=False).launch_parameter
    assert (launch.job_name, launch.container_spec_gcs_path) == ("study", "gs://b/hear.json")
    assert dict(launch.parameters) == {
        "sdk_container_image": IMAGE,
        "input": "gs://b/a, b=c^<0>/*.wav",
        "overwrite": "true",
        "endpoint": "research",
        "no_probe": "false",
    }
    assert launch.environment == FlexTemplateRuntimeEnvironment(
        service_account_email="worker@p.iam.gserviceaccount.com",
        staging_location="gs://b/staging",
        temp_location="gs://b/temp",
        subnetwork="regions/us-west1/subnetworks/s",
        ip_configuration="WORKER_IP_PRIVATE",
        machine_type="e2-standard-2",
        num_workers=3,
        additional_user_labels={"study": "a", "team": "b"},
    )


def test_the_template_has_all_of_the_metadata(environment: dict[str, str]) -> None:
    line = run(
        [
            *("gcloud", "dataflow", "flex-template", "build", "gs://b/hear.json", "--print-only", "--format=json"),
            *("--project=p", f"--image={IMAGE}", "--sdk-language=PYTHON", f"--metadata-file={TEMPLATES}/metadata.json"),
        ],
        environment,
    )
    spec = ContainerSpec.from_json(json.loads(line), ignore_unknown_fields=False)
    metadata = (TEMPLATES / "metadata.json").read_text(encoding="utf-8")
    assert spec.image == IMAGE
    assert spec.metadata == TemplateMetadata.from_json(metadata, ignore_unknown_fields=False)
    assert spec.sdk_info.language.name == "PYTHON"


# Says what it is called with, in a form that gcloud's linter can read back.
RECORDER = """#!/bin/sh
{ printf '%s\\0' "${0##*/}" "$@"; printf '\\001'; } >> "$RECORD"
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The commands of the guide, as a shell runs them from its first block to its last."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("gcloud", "bq"):
        (folder / name).write_text(RECORDER)
        (folder / name).chmod(0o755)
    (folder / "templates").symlink_to(TEMPLATES)
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", (TEMPLATES / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) > 10
    # What earlier commands would have printed.
    known = f"digest={IMAGE.partition('@')[2]}; export JOB_ID=2026-01-01_00_00_00-1\n"
    script = known + "\n".join(blocks).replace("templates/build.sh ", "templates/build.sh --dry-run >/dev/null ")
    script = re.sub(r"(?m)^export DIGEST=.*$", r"\g<0>; export DIGEST=$digest", script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(folder / "record")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [call.split("\0")[:-1] for call in (folder / "record").read_text().split("\1")[:-1]]


def test_gcloud_knows_every_command_of_the_guide(
    commands: list[list[str]], environment: dict[str, str], tmp_path: Path
) -> None:
    said = [shlex.join(command) for command in commands if command[0] == "gcloud"]
    assert len(said) > 50
    wrong = "gcloud storage buckets create gs://b --soft-delete=0"
    (tmp_path / "commands.json").write_text(json.dumps([{"command_string": one} for one in sorted({*said, wrong})]))
    linted = json.loads(
        run(["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={tmp_path / 'commands.json'}"], environment)
    )
    assert len(linted) == len({*said, wrong})
    refused = {one["command_string"]: one["error_message"] for one in linted if not one["success"]}
    assert "--soft-delete" in refused.pop(wrong)
    assert refused == {}


def test_the_guide_grants_what_its_table_says(commands: list[list[str]]) -> None:
    guide = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    table = guide[guide.index("| account | is |") : guide.index("for name in build")]
    granted = {
        argument.removeprefix("--role=") for command in commands for argument in command if "--role=" in argument
    }
    granted |= set(re.findall(r"roles/[A-Za-z.]+", " ".join(" ".join(c) for c in commands if c[0] == "bq")))
    by_schedule = {"roles/workflows.invoker"}
    by_others = {"roles/aiplatform.user"}
    by_batches = {"roles/aiplatform.user", "roles/aiplatform.viewer"}
    assert granted - by_schedule - by_batches == set(re.findall(r"roles/[A-Za-z.]+", table)) - by_others
    assert not {role for role in granted if role in ("roles/owner", "roles/editor", "roles/viewer") or "dmin" in role}


def test_impersonation_is_never_granted_on_the_project(commands: list[list[str]]) -> None:
    grants = [command for command in commands if "--role=roles/iam.serviceAccountTokenCreator" in command]
    assert len(grants) == 3
    assert all(command[1:4] == ["iam", "service-accounts", "add-iam-policy-binding"] for command in grants)
