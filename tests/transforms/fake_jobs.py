"""A service of batch prediction jobs that is none: jobs are in memory, and have the states that the test gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from endpoint.errors import JobMissing
from endpoint.job_state import PredictionJob


@dataclass
class FakeJobs:
    """Stands for endpoint.job_service.JobService."""

    jobs: dict[str, PredictionJob] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """What was asked for, in order."""
    refuses: BaseException | None = None
    """Raised by `create`."""
    refuses_to_cancel: Exception | None = None
    states: list[str] = field(default_factory=list)
    """Those that `get` gives one after the other, the last one again and again."""

    def create(
        self,
        display_name: str,
        labels: Mapping[str, str],
        source_uris: Sequence[str],
        destination_prefix: str,
        *,
        known: bool = False,
        further_labels: Mapping[str, str] | None = None,
    ) -> PredictionJob:
        self.asked.append(f"create {'known' if known else 'new'} {','.join(source_uris)} {destination_prefix}")
        if self.refuses is not None:
            raise self.refuses
        name = f"projects/p/locations/l/batchPredictionJobs/{len(self.jobs) + 1}"
        all_labels = {**(further_labels or {}), **labels}
        job = PredictionJob(name, display_name, all_labels, "pending", model="projects/p/locations/l/models/m@1")
        self.jobs[name] = job
        return job

    def find(self, labels: Mapping[str, str]) -> list[PredictionJob]:
        self.asked.append("find")
        return [job for job in self.jobs.values() if labels.items() <= job.labels.items()]

    def get(self, name: str) -> PredictionJob:
        self.asked.append("get")
        if name not in self.jobs:
            raise JobMissing(f"there is no {name}")
        if self.states:
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            self.jobs[name] = replace(self.jobs[name], state=state)  # type: ignore[arg-type]
        return self.jobs[name]

    def cancel(self, name: str) -> None:
        self.asked.append("cancel")
        if self.refuses_to_cancel is not None:
            raise self.refuses_to_cancel
        self.jobs[name] = replace(self.jobs[name], state="cancelled")
