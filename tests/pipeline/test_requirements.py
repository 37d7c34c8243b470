"""requirements.txt, as Beam's --requirements_file takes it: read line by line, by Beam and by pip."""

import subprocess
import sys
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.stager import Stager
from packaging.requirements import Requirement

from tests.pipeline.test_structure import REPOSITORY

_PARSE = """
import sys
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements
print(*(requirement.requirement for requirement in parse_requirements(sys.argv[1], PipSession())), sep="\\n")
"""
FILE = REPOSITORY / "requirements.txt"


def test_each_line_is_a_package_of_one_version() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) > 100
    for line in lines:
        requirement = Requirement(line)
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], line
        assert requirement.url is None


def test_pip_takes_it() -> None:
    # pip is no library: older ones warn of themselves when they are imported.
    done = subprocess.run([sys.executable, "-c", _PARSE, FILE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == FILE.read_text().splitlines()


def test_beam_stages_it_as_it_is(tmp_path: Path) -> None:
    options = PipelineOptions([f"--requirements_file={FILE}", "--requirements_cache=skip"])
    staged = {}
    for artifact in Stager.create_job_resources(options, str(tmp_path), log_submission_env_dependencies=False):
        path = beam_runner_api_pb2.ArtifactFilePayload.FromString(artifact.type_payload).path
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
        staged[role.staged_name] = Path(path).read_text()
    assert staged == {"requirements.txt": FILE.read_text()}
