"""The clips of a request, by the rules of its endpoint: from numbers, from files, from objects that are fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from emulator import garden_rules, research_rules
from emulator.audio_files import exact_clip
from emulator.endpoints import InstanceFormat
from emulator.garden_rules import NOT_RETRIEVED, InstanceError
from emulator.objects import NoStorageError, NotRetrievedError, ObjectReader, ObjectReference
from emulator.refusals import at_element
from emulator.standin import FloatArray
from emulator.values import NotAClipError

Clips = Sequence[FloatArray | InstanceError]
"""For each prediction that is asked for, in order, float32 (32000,), or why there is none (Model Garden only)."""

FEW = research_rules.MAX_CLIPS
"""So many clips are worked on without a thread: what that costs in waiting is less than what a thread costs."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class ClipReader:
    """Finds the clips of a request."""

    def __init__(self, objects: ObjectReader) -> None:
        self._objects = objects

    async def read(
        self, instance_format: InstanceFormat, instances: list[Any], check_count: Callable[[int], None]
    ) -> Clips:
        """The clips that these instances hold or name.

        `check_count` is given the number of predictions that are asked for before any object is fetched, and may raise.

        Raises:
            InvalidArgumentError: a rule is broken that refuses the whole request.
        """
        if instance_format is InstanceFormat.RESEARCH_AUDIO:
            clips = research_rules.audio_clips(instances)
            check_count(len(clips))
            return list(clips)
        if instance_format is InstanceFormat.RESEARCH_URIS:
            named = research_rules.object_references(instances)
            check_count(len(named))
            found = await self._objects.read([reference for _, reference in named])
            return await apart(len(found), _exact_clips, [position for position, _ in named], found)
        sources = garden_rules.sources(instances)
        check_count(len(sources))
        objects = iter(await self._objects.read([s for s in sources if isinstance(s, ObjectReference)]))
        contents = [next(objects) if isinstance(source, ObjectReference) else source for source in sources]
        return await apart(len(contents), _garden_clips, contents)


async def apart(
    clips: int, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """Does work on so many clips: on a thread if there are more than a few, so that the loop goes on meanwhile."""
    return work(*args, **kwargs) if clips <= FEW else await asyncio.to_thread(work, *args, **kwargs)


def _exact_clips(positions: Sequence[int], objects: Sequence[bytes | NotRetrievedError]) -> Clips:
    clips = []
    for position, found in zip(positions, objects, strict=True):
        if isinstance(found, NotRetrievedError):
            raise at_element(position, f"object_uri: the object was not read: {found}")
        try:
            clips.append(exact_clip(found))
        except NotAClipError as error:
            raise at_element(position, f"object_uri: {error}") from None
    return clips


def _garden_clips(contents: Sequence[FloatArray | bytes | NotRetrievedError | InstanceError]) -> Clips:
    return [_garden_clip(content) for content in contents]


def _garden_clip(content: FloatArray | bytes | NotRetrievedError | InstanceError) -> FloatArray | InstanceError:
    if isinstance(content, bytes):
        return garden_rules.decoded(content)
    if isinstance(content, NoStorageError):
        return InstanceError(str(content))
    return InstanceError(NOT_RETRIEVED) if isinstance(content, NotRetrievedError) else content
