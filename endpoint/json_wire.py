"""Instances as JSON, for the REST method `predict`; `json_answer` reads the answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from endpoint.json_answer import read_embeddings, read_results
from endpoint.json_samples import CLIP_BYTES, SampleLists, any_width, is_fixed_width
from endpoint.payload import Framing
from endpoint.predictions import Predictions


class JsonWire:
    """A `codec.Wire` for REST."""

    framing = Framing(b'{"instances":[', b",", b"]}")

    def __init__(self) -> None:
        self._lists = SampleLists()

    def samples(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[bytes | memoryview]:
        """An instance for each clip, with an error of at most 5e-8 a sample."""
        return self._lists.filled_with(clips)

    def samples_bytes(self, clip: npt.NDArray[np.float32]) -> int:
        """352,001 and a comma; what it takes if samples are 10 or more in magnitude, or not finite."""
        return (CLIP_BYTES if is_fixed_width(clip) else len(any_width(clip))) + len(self.framing.separator)

    def member(self, key: str, value: str) -> bytes:
        """A member of an object, without commas and braces."""
        return b"%b:%b" % (orjson.dumps(key), orjson.dumps(value))

    def member_bytes(self, key: str, value_bytes: int) -> int:
        """The length of a member with a string of that length in which nothing needs escaping."""
        return len(b'"":""') + len(key) + value_bytes

    def struct(self, *members: bytes) -> bytes:
        """An instance that is an object."""
        return b"{%b}" % b",".join(members)

    def struct_bytes(self, *member_bytes: int) -> int:
        """The length of such an instance and the comma after it."""
        return len(b"{},") + sum(member_bytes) + len(member_bytes) - 1

    def read_embeddings(self, body: bytes, instances: int) -> Predictions:
        """See `codec.Wire.read_embeddings`."""
        return read_embeddings(body, instances)

    def read_results(self, body: bytes, instances: int) -> Predictions:
        """See `codec.Wire.read_results`."""
        return read_results(body, instances)
