"""Neither samples nor embeddings nor a service's text show in reprs, messages or logs."""

from __future__ import annotations

import logging
import pickle
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials

from endpoint.batch import Batch
from endpoint.client import Client
from endpoint.credentials import CallCredentials
from endpoint.predictions import Predictions
from endpoint.results import Embedded, Outcome
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.token_source import TokenSource
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.servers import first_samples, serve

PLANTED = 0.734375  # exact in binary, so that it is printed as it stands
CLIP = np.full(32000, PLANTED, np.float32)


@pytest.mark.parametrize(
    "value",
    [
        Predictions(np.full((1, 512), PLANTED, np.float32), "7"),
        Embedded(np.full(512, PLANTED, np.float32), "7"),
        Outcome((Embedded(np.full(512, PLANTED, np.float32), "7"),), 1, 0),
        Reply(grpc.StatusCode.OK, f"{PLANTED}".encode()),
        Batch([CLIP], print),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reprs_show_no_samples_and_no_embeddings(value: object) -> None:
    assert str(PLANTED) not in repr(value)
    assert str(PLANTED) not in str(value)


def test_credentials_are_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(CallCredentials(TokenSource(AnonymousCredentials(), str)))


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=lambda code: code.name)
@pytest.mark.parametrize("turn", ["from the start", "after an answer"])
def test_a_service_that_echoes_samples_in_its_errors_is_not_quoted(
    code: grpc.StatusCode, turn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answered = threading.Event()

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        if turn == "after an answer" and not answered.is_set():
            answered.set()
            return first_samples(request, context)
        echo = f"bad instance: {request.instances[0].list_value.values[0].number_value}"
        context.set_trailing_metadata((("grpc-status-details-bin", echo.encode()), ("x-echo", echo)))
        return context.abort(code, echo)

    outcomes: list[Outcome] = []
    finished = threading.Semaphore(0)

    def take(outcome: Outcome) -> None:
        outcomes.append(outcome)
        finished.release()

    with serve(handler) as port:
        settings = EndpointSettings(name=official.NAME, host=f"127.0.0.1:{port}", max_attempts=2)
        with Client(settings, backoff=Backoff(0.001, 0.001)) as client:
            for _ in range(2):
                client.submit([CLIP], take)
            for _ in range(2):
                assert finished.acquire(timeout=20)
    # The server's own log is this test's, not the client's.
    logged = [record.getMessage() for record in caplog.records if record.name != "grpc._server"]
    for text in (*map(repr, outcomes), *logged):
        assert str(PLANTED) not in text
        assert "bad instance" not in text
