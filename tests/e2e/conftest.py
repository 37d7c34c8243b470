"""What runs with batch prediction jobs need, for each module that has some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it takes the official client's seconds to import
    from tests.e2e.batches import Bucket, JobService


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """The storage server."""
    from tests.e2e.batches import bucket

    with bucket(tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture(scope="module")
def service(at: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    """A service of jobs with which nothing is wrong."""
    from tests.e2e.batches import job_service

    with job_service(at, tmp_path_factory.mktemp("service") / "arrivals") as running:
        yield running
