"""The straightforward way to the same rows: whole files, one resampling each, the official client, one request at a time.

It shares no code with the pipeline: what it does is what the API documentation and the README's tables say.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import soundfile
import soxr
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport
from google.protobuf import struct_pb2

RATE_HZ, CLIP = 16000, 32000


def decode_whole(path: Path) -> tuple[np.ndarray, int]:
    """All frames as float64 (frames, channels), and their rate."""
    data = path.read_bytes()
    if b"OpusHead" not in data[:128]:
        try:
            return soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
        except soundfile.LibsndfileError:
            pass
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
        stream = container.streams.audio[0]
        is_mp4 = "mp4" in container.format.name
        length_s = float(stream.duration * stream.time_base) if is_mp4 else np.inf
    rate_hz = frames[0].sample_rate
    parts: list[np.ndarray] = []
    end = 0
    for frame in frames:
        untimed = frame.pts is None or frames[0].pts is None
        place = end if untimed else round(float((frame.pts - frames[0].pts) * frame.time_base) * rate_hz)
        if place - end > 0.01 * rate_hz:
            parts.append(np.zeros((place - end, frame.layout.nb_channels)))
            end = place
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, frame.layout.nb_channels).T
        if values.dtype.kind == "i":
            values = values / -float(np.iinfo(values.dtype).min)
        parts.append(values.T.astype(np.float64))
        end += len(parts[-1])
    decoded = np.concatenate(parts)
    # An mp4 says how much of its last frame is the encoder's padding.
    padding = max(0, len(decoded) - round(min(len(decoded), length_s * rate_hz)))
    return decoded[: len(decoded) - (padding if padding < frames[-1].samples else 0)], rate_hz


def clips_of(path: Path, min_audio_s: float = 0.5) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, number of audio samples, samples) of each clip: hop 2 s, the last one padded, channels averaged."""
    frames, rate_hz = decode_whole(path)
    audio = soxr.resample(frames.mean(axis=1).astype(np.float32), rate_hz, RATE_HZ, quality="HQ")
    for start in range(0, len(audio), CLIP):
        piece = audio[start : start + CLIP]
        if start == 0 or len(piece) >= min_audio_s * RATE_HZ:
            yield start, len(piece), np.pad(piece, (0, CLIP - len(piece)))


def hash_of(*parts: object) -> str:
    return hashlib.sha256(json.dumps(list(parts), separators=(",", ":")).encode()).hexdigest()[:32]


def reference_rows(paths: list[Path], host: str, endpoint: str, fingerprint: str) -> dict[str, dict[str, Any]]:
    """What the embeddings table must hold, by clip id; only the columns that do not come from a decoder's naming."""
    channel = grpc.insecure_channel(host, options=[("grpc.enable_http_proxy", 0)])
    transport = PredictionServiceGrpcTransport(channel=channel, credentials=AnonymousCredentials())
    client = aiplatform_v1.PredictionServiceClient(transport=transport)
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        status = path.stat()
        version = f"{status.st_size}-{status.st_mtime_ns}"
        for index, (start, audio, samples) in enumerate(clips_of(path)):
            values = [struct_pb2.Value(number_value=value) for value in samples.tolist()]
            instance = struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
            answer = client.predict(endpoint=endpoint, instances=[instance])
            clip_id = hash_of("clip", os.fspath(path), version, "mean", start, fingerprint)
            rows[clip_id] = {
                "recording_uri": os.fspath(path),
                "recording_version": version,
                "clip_index": index,
                "start_s": start / RATE_HZ,
                "end_s": (start + audio) / RATE_HZ,
                "padded_s": (CLIP - audio) / RATE_HZ,
                "peak": float(np.abs(samples).max()),
                "rms": float(np.sqrt(np.mean(np.square(samples[:audio], dtype=np.float64)))),
                "embedding": np.float32(list(answer.predictions[0])),
            }
    channel.close()
    return rows
