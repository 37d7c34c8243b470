"""As much of Google's Workflows as the examples use: their steps are run, with functions of the test's for what they call.

https://cloud.google.com/workflows/docs/reference/syntax: a step assigns, calls, switches, returns or raises; expressions are those
of Python but for `if(...)`, and maps are also read as `map.key`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

Call = Callable[[dict[str, Any]], Any]
"""What a call does with its arguments."""


class Raised(Exception):
    """The execution has failed with what a step raised."""


class _Map(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Workflow:
    """A workflow.

    Args:
      source: its subworkflows by name, `main` among them, as YAML is read.
      calls: what is called, by name, but for the subworkflows and `sys.sleep`.
      now: the time, in Unix seconds.
      project: the project's id.
    """

    def __init__(self, source: Mapping[str, Any], calls: Mapping[str, Call], now: Callable[[], float], project: str):
        self._source = source
        self._calls = calls
        self._names = {
            "text": SimpleNamespace(
                encode=str.encode,
                to_lower=str.lower,
                split=str.split,
                replace_all_regex=lambda source, pattern, to: re.sub(pattern, to, source),
            ),
            "base64": SimpleNamespace(encode=lambda data: base64.b64encode(data).decode()),
            "hash": SimpleNamespace(compute_checksum=lambda data, name: hashlib.new(name, data).digest()),
            "json": SimpleNamespace(encode_to_string=json.dumps),
            "map": SimpleNamespace(get=dict.get, merge=lambda one, other: _Map({**one, **other})),
            "sys": SimpleNamespace(now=now, get_env={"GOOGLE_CLOUD_PROJECT_ID": project}.__getitem__),
            "time": SimpleNamespace(format=lambda seconds: datetime.fromtimestamp(seconds, timezone.utc).isoformat()),
            "http": SimpleNamespace(default_retry="as Workflows does"),
            "default": lambda value, otherwise: otherwise if value is None else value,
            "if_": lambda condition, yes, no: yes if condition else no,
            "string": str,
            "int": int,
            "len": len,
        }

    def run(self, argument: Any, name: str = "main") -> Any:
        """Runs a subworkflow to its end; what it returns. Raises Raised."""
        body = self._source[name]
        given = {"args": argument} if name == "main" else argument
        assert given.keys() == set(body["params"]), name
        steps = [item for step in body["steps"] for item in step.items()]
        places = {step: place for place, (step, _) in enumerate(steps)}
        assert len(places) == len(steps)
        variables = {key: _mapped(value) for key, value in given.items()}
        place = 0
        while place < len(steps):
            step = steps[place][1]
            for case in step.get("switch", ()):
                if self._value(case["condition"], variables):
                    step = case
                    break
            self._do(step, variables)
            if "return" in step:
                return self._value(step["return"], variables)
            place = places[step["next"]] if "next" in step else place + 1
        return None

    def _do(self, step: Mapping[str, Any], variables: dict[str, Any]) -> None:
        known = {"assign", "call", "args", "result", "switch", "condition", "next", "return", "raise", "try", "retry"}
        assert step.keys() <= known, step.keys()
        for assigned in step.get("assign", ()):
            for name, value in assigned.items():
                variables[name] = self._value(value, variables)
        if "try" in step:
            assert self._value(step["retry"], variables)
            self._do(step["try"], variables)
        if "call" in step:
            result = self._call(step["call"], self._value(step["args"], variables))
            if "result" in step:
                variables[step["result"]] = _mapped(result)
        if "raise" in step:
            raise Raised(self._value(step["raise"], variables))

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        return self.run(arguments, name) if name in self._source else self._calls[name](arguments)

    def _value(self, value: Any, variables: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            return _Map({key: self._value(of, variables) for key, of in value.items()})
        if not (isinstance(value, str) and value.startswith("${")):
            return value
        expression = re.sub(r"\bif\(", "if_(", value.removeprefix("${").removesuffix("}"))
        constants = {"true": True, "false": False, "null": None}
        return eval(expression, {"__builtins__": {}}, {**self._names, **constants, **variables})


def _mapped(value: Any) -> Any:
    if isinstance(value, dict):
        return _Map({key: _mapped(of) for key, of in value.items()})
    return [_mapped(of) for of in value] if isinstance(value, list) else value
