"""CPU time of a request of four clips, from samples to embeddings: the documentation's way and this project's client.

Both ways talk to the same server, a process of its own that answers with the bytes of one prepared answer, over plain
gRPC on loopback. Counted is the CPU time of this process: encoding, sending, receiving, decoding. The documentation's way
is `PredictionServiceClient.predict(endpoint=..., instances=[list of floats, ...])`, one request at a time. The ways take
turns, and of each the best round counts, as in `timeit`: what is above it is the machine's other work.

Run as `python -m benchmarks.encode_and_send [--short]`; exits with 1 if the ratio is below what is expected.
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
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from endpoint.client import Client
from endpoint.grpc_transport import METHOD
from endpoint.results import Embedded, Outcome
from endpoint.settings import EndpointSettings
from endpoint.wire import decode_predict_response, encode_predict_request

ENDPOINT = "projects/local/locations/local/endpoints/200"
CLIPS = 4
EXPECTED_RATIO = 200
PATIENCE_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some seconds instead of half a minute")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    rounds, official_requests, our_requests = (3, 3, 300) if options.short else (6, 8, 1000)
    clips = [np.random.default_rng(seed).normal(0, 0.1, 32000).astype(np.float32) for seed in range(CLIPS)]
    answer = prepared_answer()
    encode_ms = cpu_ms(lambda: encode_predict_request(ENDPOINT, clips), 200)
    decode_ms = cpu_ms(lambda: decode_predict_response(answer, CLIPS), 200)
    with canned_server() as host:
        official_ms, our_ms = (
            min(milliseconds)
            for milliseconds in zip(
                *(
                    (documentation_way(host, clips, official_requests), our_way(host, clips, our_requests))
                    for _ in range(rounds)
                ),
                strict=True,
            )
        )
    ratio = official_ms / our_ms
    print(f"{f'4 clips, one request; best of {rounds} rounds':<62}{'CPU ms':>9}{'ratio':>9}")
    print(f"{f'documentation: predict(instances=lists), {official_requests} requests':<62}{official_ms:>9.2f}{1:>9}")
    print(f"{f'endpoint.Client, 32 in flight, {our_requests} requests':<62}{our_ms:>9.2f}{ratio:>9.0f}")
    print(f"{'  of it encoding':<62}{encode_ms:>9.3f}")
    print(f"{'  of it decoding':<62}{decode_ms:>9.3f}")
    passed = ratio > EXPECTED_RATIO
    print(f"{'PASS' if passed else 'FAIL'}: {ratio:.0f} times less CPU, expected more than {EXPECTED_RATIO}")
    return 0 if passed else 1


def documentation_way(host: str, clips: list[np.ndarray], requests: int) -> float:
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

    milliseconds = cpu_ms(predict, requests)
    channel.close()
    return milliseconds


def our_way(host: str, clips: list[np.ndarray], requests: int) -> float:
    """CPU ms a request of this project's client, after some to fill the window."""
    finished = threading.Semaphore(0)

    def note(outcome: Outcome) -> None:
        assert all(isinstance(result, Embedded) for result in outcome.results), outcome
        finished.release()

    with Client(EndpointSettings(name=ENDPOINT, host=host)) as client:

        def run(batches: int) -> None:
            for _ in range(batches):
                client.submit(clips, note)
            for _ in range(batches):
                assert finished.acquire(timeout=PATIENCE_S)

        run(100)
        started_s = time.process_time()
        run(requests)
        return (time.process_time() - started_s) / requests * 1000


def cpu_ms(action: Callable[[], Any], times: int) -> float:
    """CPU time of this process for each call, after one to warm up."""
    action()
    started_s = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - started_s) / times * 1000


def prepared_answer() -> bytes:
    from google.protobuf import struct_pb2

    prediction = struct_pb2.Value()
    prediction.list_value.extend(np.random.default_rng(0).normal(0, 1, 512).tolist())
    body: bytes = prediction.SerializeToString()
    length = bytes([len(body) & 127 | 128, len(body) >> 7])
    return (b"\x0a" + length + body) * CLIPS + b"\x12\x03200"


@contextmanager
def canned_server() -> Iterator[str]:
    """Runs `serve` in a process that ends with this one; yields its host."""
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
        yield process.stdout.readline().strip()
        process.stdin.close()


def serve() -> None:
    """Answers every request with the same bytes until standard input ends, which it does when the parent does."""
    answer = prepared_answer()
    method = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
    service, name = METHOD.strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(service, {name: method})
    server = grpc.server(ThreadPoolExecutor(4), [handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    sys.exit(main())
