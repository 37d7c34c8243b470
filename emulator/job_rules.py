"""What a batch prediction job must say to be taken: anything else is refused with the real service's status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emulator.endpoints import InstanceFormat
from emulator.refusals import InvalidArgumentError, NotFoundError

DEFAULT_MODEL = "projects/local/locations/local/models/220"
DEFAULT_GARDEN_MODEL = "projects/local/locations/local/models/300"

_MAX_LABELS = 64
_MAX_DISPLAY_NAME = 128

_PARENT = re.compile(r"projects/[a-z0-9.:-]+/locations/(?P<location>[a-z0-9-]+)", re.ASCII)
_MODEL = re.compile(
    r"(?P<name>projects/[a-z0-9.:-]+/locations/(?P<location>[a-z0-9-]+)/models/[A-Za-z0-9_-]+)(@(?P<version>[a-z0-9-]+))?",
    re.ASCII,
)
_JOB = re.compile(rf"{_PARENT.pattern}/batchPredictionJobs/[0-9]+", re.ASCII)
_VERSIONS = (None, "1", "default")
_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\r\n]+", re.ASCII)
_PREFIX = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\r\n*?]*)?", re.ASCII)
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class ServedModel:
    """A model that jobs can name.

    Attributes:
        name: `projects/P/locations/L/models/M`; it has one version, 1.
        instance_format: of the lines it takes, RESEARCH_AUDIO or MODEL_GARDEN.
    """

    name: str
    instance_format: InstanceFormat


class Models:
    """All models of this service, by name."""

    def __init__(self, served: Iterable[ServedModel]) -> None:
        """Raises ValueError if two have the same name."""
        models = list(served)
        self._by_name = {model.name: model for model in models}
        if len(self._by_name) < len(models):
            raise ValueError("two models have the same name")

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(self._by_name)

    def find(self, name: str, parent: str) -> ServedModel:
        """The model of this name, perhaps with `@version`, that a job below `parent` may use.

        Raises:
            InvalidArgumentError: it is no model's name, or its location is not the parent's.
            NotFoundError: there is no such model, or no such version.
        """
        match = _MODEL.fullmatch(name)
        if match is None:
            raise InvalidArgumentError(
                "Invalid resource field value in the request: model must read projects/P/locations/L/models/M."
            )
        if match["location"] != location_of(parent):
            raise InvalidArgumentError(f"The model's location must be the job's: {location_of(parent)} is expected.")
        model = self._by_name.get(match["name"])
        if model is None or match["version"] not in _VERSIONS:
            raise NotFoundError(f"The Model `{name}` does not exist.")
        return model


DEFAULT_MODELS = Models(
    [
        ServedModel(DEFAULT_MODEL, InstanceFormat.RESEARCH_AUDIO),
        ServedModel(DEFAULT_GARDEN_MODEL, InstanceFormat.MODEL_GARDEN),
    ]
)


def is_model_name(name: str) -> bool:
    """Whether this reads `projects/P/locations/L/models/M`, without a version."""
    match = _MODEL.fullmatch(name)
    return match is not None and match["name"] == name


def location_of(parent: str) -> str:
    """The location in `projects/P/locations/L`; raises InvalidArgumentError for anything else."""
    match = _PARENT.fullmatch(parent)
    if match is None:
        raise InvalidArgumentError(
            "Invalid resource field value in the request: parent must read projects/P/locations/L."
        )
    return match["location"]


def check_job_name(name: str) -> None:
    """Refuses (InvalidArgumentError) what does not read `projects/P/locations/L/batchPredictionJobs/J`."""
    if _JOB.fullmatch(name) is None:
        raise InvalidArgumentError(
            "Invalid resource field value in the request: name must read projects/P/locations/L/batchPredictionJobs/J."
        )


def check_job(job: Any) -> None:
    """Refuses (InvalidArgumentError) a BatchPredictionJob that lacks something, or asks for what is not served."""
    if not 0 < len(job.display_name) <= _MAX_DISPLAY_NAME:
        raise InvalidArgumentError(f"display_name must have 1 to {_MAX_DISPLAY_NAME} characters.")
    _check_labels(job.labels)
    source, destination = job.input_config, job.output_config
    if source.instances_format != "jsonl":
        raise InvalidArgumentError("input_config.instances_format must be jsonl here.")
    if destination.predictions_format != "jsonl":
        raise InvalidArgumentError("output_config.predictions_format must be jsonl here.")
    if not source.gcs_source.uris:
        raise InvalidArgumentError("input_config.gcs_source.uris must name at least one file.")
    if not all(map(_URI.fullmatch, source.gcs_source.uris)):
        raise InvalidArgumentError(
            "input_config.gcs_source.uris must read gs://BUCKET/OBJECT; * and ** stand for any characters."
        )
    if not _PREFIX.fullmatch(destination.gcs_destination.output_uri_prefix):
        raise InvalidArgumentError("output_config.gcs_destination.output_uri_prefix must read gs://BUCKET/PREFIX.")
    _check_resources(job.dedicated_resources)


def _check_labels(labels: Any) -> None:
    if len(labels) > _MAX_LABELS:
        raise InvalidArgumentError(f"A job can have {_MAX_LABELS} labels at most.")
    if not all(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value) for key, value in labels.items()):
        raise InvalidArgumentError(
            "labels must consist of lower-case letters, digits, _ and -, 63 at most; a key begins with a letter."
        )


def _check_resources(resources: Any) -> None:
    machine = resources.machine_spec
    if not machine.machine_type:
        raise InvalidArgumentError("dedicated_resources.machine_spec.machine_type is required.")
    if (machine.accelerator_type != 0) != (machine.accelerator_count > 0):
        raise InvalidArgumentError("machine_spec.accelerator_type and accelerator_count belong together.")
    starting, most = resources.starting_replica_count, resources.max_replica_count
    if min(starting, most, machine.accelerator_count) < 0 or 0 < most < starting:
        raise InvalidArgumentError("dedicated_resources: starting_replica_count must be at most max_replica_count.")
