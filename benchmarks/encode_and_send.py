"""CPU time of a request, from clips to embeddings: the obvious ways and this project's client.

Sent are four clips, over plain gRPC and plain HTTP on loopback. All ways talk to the same server, a process of its own
that answers with the bytes of one prepared answer. Counted is the CPU time of this process: encoding, sending, receiving,
decoding. The documentation's way is `PredictionServiceClient.predict(endpoint=..., instances=[list of floats, ...])`, one
request at a time; its counterpart over REST is `requests` with `json=`. The ways take turns, and of each the best round
counts, as in `timeit`: what is above it is the machine's other work.

What only encodes or decodes is measured by itself, beside the official message classes or the `json` module: objects by
their URIs with tokens of 2,048 bytes, and audio as Model Garden endpoints take it.

Run as `python -m benchmarks.encode_and_send [--short]`; exits with 1 if a ratio of sending is below what is expected.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests

from benchmarks.encoders import CLIPS, ENDPOINT, cpu_ms, encoders, prepared_answer
from endpoint.client import Client
from endpoint.grpc_transport import METHOD
from endpoint.rate import LocalRate
from endpoint.results import Embedded, Outcome
from endpoint.settings import EndpointSettings, TransportName

EXPECTED_RATIO = 200
EXPECTED_REST_RATIO = 15
PATIENCE_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some seconds instead of half a minute")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    rounds, their_requests, our_requests = (3, 3, 300) if options.short else (6, 8, 1000)
    clips = [np.random.default_rng(seed).normal(0, 0.1, 32000).astype(np.float32) for seed in range(CLIPS)]
    with canned_servers() as (grpc_host, rest_host):
        ways: list[Callable[[], float]] = [
            lambda: documentation_way(grpc_host, clips, their_requests),
            lambda: our_way("grpc", grpc_host, clips, our_requests),
            lambda: requests_way(rest_host, clips, their_requests),
            lambda: our_way("rest", rest_host, clips, our_requests),
        ]
        best = [
            min(milliseconds) for milliseconds in zip(*([way() for way in ways] for _ in range(rounds)), strict=True)
        ]
    print(f"{f'4 clips, one request; best of {rounds} rounds':<62}{'CPU ms':>9}{'ratio':>9}")
    show("gRPC: documentation's predict(instances=lists)", best[0], best[0])
    show("gRPC: endpoint.Client, 32 in flight", best[1], best[0])
    show("REST: requests.post(json=lists)", best[2], best[2])
    show("REST: endpoint.Client, 32 in flight", best[3], best[2])
    print(f"{f'one request or answer; best of {rounds} rounds':<62}{'CPU ms':>9}{'ratio':>9}")
    for what, theirs, ours in encoders(clips):
        their_ms = min(cpu_ms(theirs, 1) for _ in range(rounds))
        our_ms = min(cpu_ms(ours, our_requests // 10) for _ in range(rounds))
        show(what, our_ms, their_ms)
    ratio, rest_ratio = best[0] / best[1], best[2] / best[3]
    passed = ratio > EXPECTED_RATIO and rest_ratio > EXPECTED_REST_RATIO
    print(
        f"{'PASS' if passed else 'FAIL'}: {ratio:.0f} times less CPU over gRPC, expected more than {EXPECTED_RATIO}; "
        f"{rest_ratio:.0f} times less over REST, expected more than {EXPECTED_REST_RATIO}"
    )
    return 0 if passed else 1


def show(what: str, milliseconds: float, of_ms: float) -> None:
    print(f"{what:<62}{milliseconds:>9.3f}{of_ms / milliseconds:>9.0f}")


def documentation_way(host: str, clips: list[np.ndarray], times: int) -> float:
    """CPU ms a request of the official client, as the API documentation shows it."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceClient
    from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport

    channel = grpc.insecure_channel(host, options=[("grpc.enable_http_proxy", 0)])
    transport = PredictionServiceGrpcTransport(channel=channel, credentials=AnonymousCredentials())
    client = PredictionServiceClient(transport=transport)

    def predict() -> None:
        response = client.predict(endpoint=ENDPOINT, instances=[clip.tolist() for clip in clips])
        embeddings = np.array([list(prediction) for prediction in response.predictions], np.float32)
        assert embeddings.shape == (CLIPS, 512)

    milliseconds = cpu_ms(predict, times)
    channel.close()
    return milliseconds


def requests_way(host: str, clips: list[np.ndarray], times: int) -> float:
    """CPU ms a request of the way that is written down first."""
    with requests.Session() as session:
        session.trust_env = False

        def predict() -> None:
            response = session.post(
                f"http://{host}/v1/{ENDPOINT}:predict", json={"instances": [clip.tolist() for clip in clips]}
            )
            assert np.array(response.json()["predictions"], np.float32).shape == (CLIPS, 512)

        return cpu_ms(predict, times)


def our_way(transport: TransportName, host: str, clips: list[np.ndarray], times: int) -> float:
    """CPU ms a request of this project's client, after some to fill the window."""
    finished = threading.Semaphore(0)

    def note(outcome: Outcome) -> None:
        assert all(isinstance(result, Embedded) for result in outcome.results), outcome
        finished.release()

    settings = EndpointSettings(name=ENDPOINT, host=host, transport=transport)
    with Client(settings, rate=LocalRate()) as client:

        def run(batches: int) -> None:
            for _ in range(batches):
                client.submit(clips, note)
            for _ in range(batches):
                assert finished.acquire(timeout=PATIENCE_S)

        run(100)
        started_s = time.process_time()
        run(times)
        return (time.process_time() - started_s) / times * 1000


@contextmanager
def canned_servers() -> Iterator[tuple[str, str]]:
    """Runs `serve` in a process that ends with this one; yields the hosts for gRPC and REST."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.encode_and_send", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().strip(), process.stdout.readline().strip()
        process.stdin.close()


def serve() -> None:
    """Answers every request with the same bytes until standard input ends, which it does when the parent does."""
    answer, rest_answer = prepared_answer("grpc", CLIPS), prepared_answer("rest", CLIPS)
    method = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
    service, name = METHOD.strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(service, {name: method})
    server = grpc.server(ThreadPoolExecutor(4), [handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(rest_answer)))
            self.end_headers()
            self.wfile.write(rest_answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Not on standard error."""

    rest_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=rest_server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{port}\n127.0.0.1:{rest_server.server_address[1]}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()
    rest_server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
