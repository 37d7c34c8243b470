"""Rows of references as bytes, for where they wait to be grouped.

A runner may hold all that it groups in memory: as Python objects, or pickled with the names of their classes, references
take several times what is in them. Packed, they are JSON arrays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_TO_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_UTF8 = "surrogatepass"
_Convert = Callable[[Any, Any], Any]
"""Of a value and the texts that came before: when packing, their numbers by text; when unpacking, a list of them."""


class _Form(NamedTuple):
    """How values of a type become JSON's, and these such values again; None: they are the same."""

    pack: _Convert | None
    unpack: _Convert | None


class Packing(Generic[T]):
    """Packs values of some types: NamedTuples of numbers, texts, None, and tuples and further NamedTuples of them.

    Args:
      types: the types. Their fields' types must say what is in them; a field may be of one type or None.
    """

    def __init__(self, *types: type[T]) -> None:
        self._forms = [_form(kind) for kind in types]
        self._numbers = {kind: number for number, kind in enumerate(types)}

    def pack(self, value: T, key: str = "") -> bytes:
        """The value as bytes; each text that is in it comes once, and not at all if it equals `key`, under which it is grouped."""
        number = self._numbers[type(value)]
        pack = self._forms[number].pack
        return _TO_JSON([number, value if pack is None else pack(value, {key: 0})]).encode("utf-8", _UTF8)

    def unpack(self, data: bytes, key: str = "") -> T:
        """The value whose bytes these are, packed with the same `key`."""
        number, packed = json.loads(data.decode("utf-8", _UTF8))
        unpack = self._forms[number].unpack
        return cast(T, packed if unpack is None else unpack(packed, [key]))


class AsBytes(Packing[bytes]):
    """Of values that are bytes already: they stay as they are."""

    def pack(self, value: bytes, key: str = "") -> bytes:  # noqa: ARG002
        """The value."""
        return value

    def unpack(self, data: bytes, key: str = "") -> bytes:  # noqa: ARG002
        """The value."""
        return data


def _pack_text(text: str, numbers: dict[str, int]) -> str | int:
    number = numbers.get(text)
    if number is not None:
        return number
    numbers[text] = len(numbers)
    return text


def _unpack_text(packed: str | int, texts: list[str]) -> str:
    if isinstance(packed, int):
        return texts[packed]
    texts.append(packed)
    return packed


def _form(hint: Any) -> _Form:
    if hint is str:
        return _Form(_pack_text, _unpack_text)
    if hint in (int, float, bool, NoneType):
        return _Form(None, None)
    if get_origin(hint) in (Union, UnionType):
        (kind,) = (kind for kind in get_args(hint) if kind is not NoneType)
        return _or_none(_form(kind))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return _of_many(_form(kinds[0])) if kinds[1:] == (...,) else _of_each([_form(kind) for kind in kinds], tuple)
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        hints = get_type_hints(hint)
        named = cast(Any, hint)
        return _of_each([_form(hints[name]) for name in named._fields], named._make)
    raise TypeError(f"{hint!r} cannot be packed")


def _or_none(form: _Form) -> _Form:
    pack, unpack = form
    return _Form(
        None if pack is None else lambda value, texts: None if value is None else pack(value, texts),
        None if unpack is None else lambda packed, texts: None if packed is None else unpack(packed, texts),
    )


def _of_many(form: _Form) -> _Form:
    pack, unpack = form
    return _Form(
        None if pack is None else lambda values, texts: [pack(value, texts) for value in values],
        lambda packed, texts: tuple(packed) if unpack is None else tuple([unpack(one, texts) for one in packed]),
    )


def _of_each(forms: list[_Form], make: Callable[[list[Any]], Any]) -> _Form:
    packs = [(at, form.pack) for at, form in enumerate(forms) if form.pack is not None]
    unpacks = [(at, form.unpack) for at, form in enumerate(forms) if form.unpack is not None]

    def pack_each(values: tuple[Any, ...], texts: Any) -> list[Any]:
        packed = list(values)
        for at, pack in packs:
            packed[at] = pack(packed[at], texts)
        return packed

    def unpack_each(packed: list[Any], texts: Any) -> Any:
        for at, unpack in unpacks:
            packed[at] = unpack(packed[at], texts)
        return make(packed)

    return _Form(pack_each, unpack_each)
