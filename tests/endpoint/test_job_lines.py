"""Lines of batch jobs: numbers rounded as decimals are, small, and recognised again however the service writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from endpoint.job_lines import LineWriter, read_answer

EMBEDDING = np.linspace(-3, 3, 512, dtype=np.float32)


def answered(instance: object) -> bytes:
    return json.dumps({"instance": instance, "prediction": EMBEDDING.tolist()}).encode() + b"\n"


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.1, 5.0, 1e3, 1e30])
def test_a_clip_is_recognised_in_its_answer(scale: float) -> None:
    samples = (np.random.default_rng(1).uniform(-1, 1, 32000) * scale).astype(np.float32)
    line = LineWriter("research").line(samples)
    written = json.loads(line.data)
    assert written == [float(f"{sample:.6f}") for sample in samples.tolist()]
    for numbers in (written, np.array(written, np.float32).tolist()):
        answer = read_answer(answered(numbers))
        assert answer.digest == line.digest
        assert (answer.result == EMBEDDING).all()
