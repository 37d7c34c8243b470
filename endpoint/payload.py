"""Batches encoded as far as that is possible before they are sent, and put together to requests from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from endpoint.items import ClipObject

TokenOf: TypeAlias = Callable[[ClipObject], str]


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands around and between the instances of a request."""

    head: bytes
    separator: bytes
    tail: bytes

    def join(self, instances: Sequence[bytes | memoryview]) -> bytes:
        """A request with these instances; copies each once."""
        if self.separator:
            separated = [self.separator] * (2 * len(instances) - 1)
            separated[::2] = instances  # type: ignore[assignment]
            return b"".join((self.head, *separated, self.tail))
        return b"".join((self.head, *instances, self.tail))


class FixedPayload:
    """Instances that are the same in each request, kept as the request with all of them."""

    def __init__(self, framing: Framing, instances: Sequence[bytes | memoryview]) -> None:
        self._framing = framing
        self._request = framing.join(instances)
        lengths = [len(instance) for instance in instances]
        starts = accumulate((length + len(framing.separator) for length in lengths), initial=len(framing.head))
        self._places = [slice(start, start + length) for start, length in zip(starts, lengths, strict=False)]

    def request(self, positions: Sequence[int], token_of: TokenOf) -> bytes:  # noqa: ARG002 - the protocol's
        """See `codec.Payload.request`; the request with all instances is not copied."""
        if len(positions) == len(self._places):
            return self._request
        whole = memoryview(self._request)
        return self._framing.join([whole[self._places[position]] for position in positions])


@dataclass(frozen=True, slots=True)
class TokenPayload:
    """Instances that carry a token, which is put in for each request anew."""

    framing: Framing
    objects: Sequence[ClipObject]
    members: Sequence[tuple[bytes, ...]]
    """What the instances hold beside their tokens."""
    token_member: Callable[[str], bytes]
    """Encodes a token."""
    instance: Callable[..., bytes]
    """Makes an instance of an encoded token and the other members."""

    def request(self, positions: Sequence[int], token_of: TokenOf) -> bytes:
        """See `codec.Payload.request`."""
        # Objects of one bucket have the same token, which is encoded once.
        token_members: dict[str, bytes] = {}
        instances = []
        for position in positions:
            token = token_of(self.objects[position])
            member = token_members.get(token)
            if member is None:
                member = token_members[token] = self.token_member(token)
            instances.append(self.instance(member, *self.members[position]))
        return self.framing.join(instances)
