"""A run's settings: validated, frozen, complete before any pipeline exists."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

from audio.clips import CLIP_SAMPLES, SAMPLE_RATE_HZ, ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.manifest import ManifestSettings
from audio.resample import ResamplerName
from endpoint.job_settings import JobSettings
from endpoint.settings import EndpointSettings, InstanceFormat, SendAs, TransportName
from endpoint.tokens import BucketTokenSettings
from pipeline.endpoints import Target
from rows.bigquery import TableName
from rows.generations import SUMMARY_FILE
from rows.identity import fingerprint
from transforms.embed_packets import EmbedSettings
from transforms.packet_bundles import WorkSettings
from transforms.plan_segments import PlanSettings
from transforms.segment_rows import RowSettings
from transforms.staging import StagingArea
from transforms.submit_job import Submission
from transforms.write_bigquery import TableWrite
from transforms.write_clips import WriteSettings
from transforms.write_tables import OutputFormat

AUDIO_RULES = 2
"""Raised when this project changes how it makes samples of a recording, so that old and new rows are not mixed."""


RESAMPLERS: Final[dict[ResamplerName, str]] = {"soxr": "soxr HQ", "tensorflow_io": "tensorflow_io"}
"""What the fingerprint calls them."""
Send: TypeAlias = Literal["audio", "uris", "batch"]
"""How clips get to the model: in requests to an endpoint, or as files for a batch prediction job."""
BatchStep: TypeAlias = Literal["write", "join"]


@dataclass(frozen=True)
class BatchSettings:
    """Where and on what a batch prediction job runs; see JobSettings."""

    project: str | None
    """None: the model's."""
    machine_type: str
    accelerator_type: str
    accelerator_count: int
    starting_replicas: int | None
    max_replicas: int | None
    step: BatchStep | None
    """None: both, and the wait between them."""


def _new_run_id() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True)
class RunSettings:
    """What a run does. The options of the command say what each field means."""

    inputs: tuple[str, ...]
    manifest: ManifestSettings | None
    """Instead of inputs."""
    limit: int | None
    clips: ClipSettings
    target: Target
    model_id: str
    send: Send
    batch: BatchSettings | None
    """Where clips are sent as a batch."""
    instance_format: InstanceFormat
    transport: TransportName
    timeout_s: float
    max_attempts: int
    requests_in_flight: int
    clips_per_request: int | None
    max_request_bytes: int
    max_requests_per_minute: float | None
    max_requests: int | None
    endpoint_service_account: str | None
    bucket_service_account: str | None
    full_scope_tokens: bool
    staging_location: str | None
    keep_staged: bool
    probe: bool
    output: str | None
    """None: to tables only."""
    output_table: TableName | None
    job_project: str | None
    """In which BigQuery jobs run; None: that of the table."""
    load_location: str | None
    """Below which load files are written, `gs://...`; None without a table."""
    output_format: OutputFormat
    checkpoint: str
    fresh_checkpoint: bool
    delete_checkpoint: bool
    retry_failed: bool
    decoder_processes: int
    decoder_limits: DecoderLimits
    overwrite: bool
    max_failure_fraction: float
    run_id: str = field(default_factory=_new_run_id)

    @property
    def fingerprint(self) -> str:
        """The identity of how samples are made and which model they go to."""
        return fingerprint(self.fingerprint_settings)

    @property
    def fingerprint_settings(self) -> dict[str, str | int | float]:
        """What the fingerprint covers."""
        return {
            "audio_rules": AUDIO_RULES,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "clip_samples": CLIP_SAMPLES,
            "resampler": RESAMPLERS[self.clips.resampler],
            "model_id": self.model_id,
        }

    @property
    def clip_choice(self) -> dict[str, Any]:
        """Which clips there are: what the fingerprint leaves out."""
        return {
            "channel": self.clips.channel,
            "hop_s": self.clips.hop_s,
            "tail": self.clips.tail,
            "min_audio_s": self.clips.min_audio_s,
            "min_rms_dbfs": self.clips.min_rms_dbfs,
            "event_context": self.clips.event_context,
        }

    @property
    def summary_path(self) -> str:
        """The file of the summary: beside the output files, or, where there are none, in the checkpoint."""
        if self.output is None:
            return f"{self.checkpoint}/{self.run_id}/{SUMMARY_FILE}"
        return f"{self.output}-summary.json"

    @property
    def table_write(self) -> TableWrite | None:
        """How rows get into BigQuery, if they do."""
        if self.output_table is None:
            return None
        folder = f"{self.load_location}/bigquery-{self.run_id}"
        return TableWrite(self.output_table, self.run_id, self.job_project or self.output_table.project, folder)

    @property
    def destinations(self) -> str:
        """The options that say where rows go, for messages: another run's rows need another of each."""
        return " and ".join(
            name
            for name, value in (("--output", self.output), ("--output_table", self.output_table))
            if value is not None
        )

    def endpoint_settings(self, name: str, host: str) -> EndpointSettings:
        """The client's settings, once it is known where the endpoint is."""
        return EndpointSettings(
            name=name,
            host=host,
            timeout_s=self.timeout_s,
            max_attempts=self.max_attempts,
            max_in_flight=self.requests_in_flight,
            clips_per_request=self.clips_per_request,
            send=cast(SendAs, self.send),
            instance_format=self.instance_format,
            transport=self.transport,
            max_request_bytes=self.max_request_bytes,
            max_requests_per_minute=self.max_requests_per_minute,
            max_requests=self.max_requests,
            run_id=self.run_id,
            service_account=self.endpoint_service_account,
            bucket_tokens=BucketTokenSettings(
                service_account=self.bucket_service_account,
                full_scope=self.full_scope_tokens,
                staging=None if self.staging is None else (self.staging.bucket, self.staging.run_prefix),
            ),
        )

    def job_settings(self, model: str, host: str) -> JobSettings:
        """The client's settings for a batch prediction job, once it is known where the service is."""
        assert self.batch is not None
        return JobSettings(
            model=model,
            host=host,
            project=self.batch.project or model.split("/")[1],
            machine_type=self.batch.machine_type,
            accelerator_type=self.batch.accelerator_type,
            accelerator_count=self.batch.accelerator_count,
            starting_replicas=self.batch.starting_replicas,
            max_replicas=self.batch.max_replicas,
            instance_format=self.instance_format,
            transport=self.transport,
            service_account=self.endpoint_service_account,
        )

    @property
    def staging(self) -> StagingArea | None:
        """Where this run puts clips on Cloud Storage, if it sends URIs or a batch."""
        return None if self.staging_location is None else StagingArea.of(self.staging_location, self.run_id)

    def embed_settings(self, endpoint: EndpointSettings) -> EmbedSettings:
        """What the stage that embeds needs to know."""
        return EmbedSettings(self._work_settings(endpoint.name), endpoint, self.staging, self.keep_staged)

    def write_settings(self, model: str) -> WriteSettings:
        """What the stage that writes clips for a job needs to know."""
        assert self.staging is not None
        return WriteSettings(self._work_settings(model), self.staging.run_uri, self.instance_format)

    def submission(self, job: JobSettings) -> Submission:
        """What is needed to submit the job for this run's clips."""
        assert self.staging is not None
        return Submission(job, self.checkpoint, self.run_id, self.staging.run_uri, self.fingerprint)

    @property
    def joined_id(self) -> str:
        """The name of this run's second folder in the checkpoint: for what is stored after it has waited for a job."""
        return f"{self.run_id}-joined"

    def _work_settings(self, endpoint_name: str) -> WorkSettings:
        return WorkSettings(
            self.clips,
            RowSettings(self.fingerprint, self.model_id, endpoint_name),
            self.checkpoint,
            self.run_id,
            self.decoder_processes,
            self.decoder_limits,
            self.retry_failed,
        )

    @property
    def plan_settings(self) -> PlanSettings:
        """What the stage that plans needs to know."""
        return PlanSettings(self.clips, self.retry_failed, self.limit, self.fingerprint)
