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


def test_the_environment_with_tensorflow_differs_only_where_it_must() -> None:
    usual = {}
    for line in FILE.read_text().splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_full_version": "3.11.9"}):
            usual[requirement.name] = str(requirement.specifier)
    lines = (REPOSITORY / "requirements-tfio.txt").read_text().splitlines()
    locked = [Requirement(line.removesuffix(" \\").strip()) for line in lines if not line.startswith(" ")]
    with_tensorflow = {requirement.name: str(requirement.specifier) for requirement in locked}
    differs = {name for name, version in with_tensorflow.items() if usual.get(name, version) != version}
    assert differs == {"numpy"}
    assert usual.keys() - with_tensorflow.keys() <= {"pywin32-ctypes"}
    assert with_tensorflow["numpy"].startswith("==1.26.")
    assert with_tensorflow["protobuf"].startswith("==6.33.")
    assert (with_tensorflow["tensorflow-cpu"], with_tensorflow["tensorflow-io"]) == ("==2.17.1", "==0.37.1")
    assert all("--hash=sha256:" in line for line in lines if line.startswith(" "))
