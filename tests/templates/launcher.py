"""Starts the template's entry point as the Flex Template's launcher does on its machine.

What is documented, or can be read in public code, of the contract:

- The launcher runs `python` with the file that FLEX_TEMPLATE_PYTHON_PY_FILE names, in the image that the template names
  (https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates); the image says which working directory.
- Every argument is one word, `--NAME=VALUE`, sorted by name: the launch's parameters, each with a value, switches too; and
  what the launch itself has (`FlexTemplateRuntimeEnvironment` of the Dataflow API): `runner`, always DataflowRunner,
  `project`, `region`, `job_name`, `template_location`, `temp_location`, `staging_location`, `service_account_email`, and
  where they are given `machine_type`, `num_workers`, `max_num_workers`, `network`, `subnetwork`, `labels`, `experiments`, ...
  Of these, `runner`, `project`, `region`, `job_name` and `template_location` must be left as they are
  (https://cloud.google.com/dataflow/docs/guides/troubleshoot-templates).
- `requirements_file`, `setup_file` and `extra_package` only where FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE and its like are set.
  They are not.
- The job's graph is to be written to `template_location`, a file `job_object` below the staging location's
  `template_launches`, and the program is to exit, with 0, without having waited for anything. The launcher then starts the
  job. Any other status fails the launch; what the program printed is then in the launch's `console_logs`.

The launcher itself is a binary of Google's without public source. How it spells what is not listed here, for instance private
addresses, is not known; the command takes Beam's switches both as `--switch` and as `--switch=true`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = "us-west1-docker.pkg.dev/project-1/hear/pipeline@sha256:" + "0" * 64

LAUNCH = {
    "runner": "DataflowRunner",
    "project": "project-1",
    "region": "us-west1",
    "job_name": "hear-20260101-000000",
    "service_account_email": "worker@project-1.iam.gserviceaccount.com",
    "staging_location": "gs://bucket/staging",
    "temp_location": "gs://bucket/temp",
    "template_location": "gs://bucket/staging/template_launches/2026-01-01_00_00_00-1/job_object",
}
"""What the launcher adds to the parameters of a launch that gives no more than it must."""

PARAMETERS = {
    "endpoint": "research",
    "input": "gs://bucket/coughs",
    "output": "gs://bucket/study/run",
    "sdk_container_image": IMAGE,
}
"""The parameters of such a launch."""


def arguments(parameters: Mapping[str, str], launch: Mapping[str, str] = LAUNCH) -> list[str]:
    """The arguments that the entry point gets."""
    return [f"--{name}={value}" for name, value in sorted({**parameters, **launch}.items())]


def start_entry_point(
    folder: Path,
    parameters: Mapping[str, str],
    environment: Mapping[str, str],
    *,
    launch: Mapping[str, str] = LAUNCH,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs `templates/main.py` from a folder that stands for the image's /template.

    Args:
      folder: where that folder is made.
      parameters: of the launch, by name.
      environment: on top of what the image has. `PYTHONPATH` stands for the installation of the packages.
      launch: what the launcher adds.
      timeout_s: after which the test fails.
    """
    template = folder / "template"
    template.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "templates" / "main.py", template)
    return subprocess.run(
        [sys.executable, str(template / "main.py"), *arguments(parameters, launch)],
        cwd=template,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(REPOSITORY),
            "FLEX_TEMPLATE_PYTHON_PY_FILE": str(template / "main.py"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
