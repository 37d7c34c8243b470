"""State as bytes of a fixed length and back: dataclasses of numbers, of lists of counts, and of other such dataclasses."""

from __future__ import annotations

import dataclasses
import struct
import typing
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

_CODES: dict[Any, str] = {float: "d", int: "q", bool: "?"}


class Packing(Generic[_T]):
    """Writes and reads the values of one class; how a field is written follows from its annotation.

    Args:
        of: a dataclass whose fields are `float`, `int` (64 bits), `bool`, `list[int]`, or dataclasses of the same kind.
        list_length: how many counts each list has, each from 0 to 2**32 - 1.
    """

    def __init__(self, of: type[_T], list_length: int) -> None:
        self._of = of
        self._list_length = list_length
        self._fields: dict[Any, dict[str, Any]] = {of: _fields(of)}
        self._struct = struct.Struct("<" + "".join(self._codes(of)))
        self.size_bytes = self._struct.size

    def pack(self, value: _T) -> bytes:
        """The value as `size_bytes` bytes."""
        return self._struct.pack(*self._numbers(value))

    def unpack(self, data: bytes) -> _T:
        """The value of which `pack` made these bytes."""
        value: _T = self._made(self._of, iter(self._struct.unpack(data)))
        return value

    def _codes(self, of: Any) -> Iterator[str]:
        for annotation in self._fields[of].values():
            if dataclasses.is_dataclass(annotation):
                self._fields[annotation] = _fields(annotation)
                yield from self._codes(annotation)
            else:
                yield _CODES.get(annotation) or f"{self._list_length}I"

    def _numbers(self, value: Any) -> Iterator[Any]:
        for name, annotation in self._fields[type(value)].items():
            field = getattr(value, name)
            if annotation in _CODES:
                yield field
            else:
                yield from self._numbers(field) if annotation in self._fields else field

    def _made(self, of: Any, numbers: Iterator[Any]) -> Any:
        values = []
        for annotation in self._fields[of].values():
            if annotation in _CODES:
                values.append(next(numbers))
            elif annotation in self._fields:
                values.append(self._made(annotation, numbers))
            else:
                values.append([next(numbers) for _ in range(self._list_length)])
        return of(*values)


def _fields(of: Any) -> dict[str, Any]:
    annotations = typing.get_type_hints(of)
    return {field.name: annotations[field.name] for field in dataclasses.fields(of)}
