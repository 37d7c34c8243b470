"""What bearer tokens allow, asked of a token server on loopback each time: a token may be revoked at any moment.

`GET URL?access_token=TOKEN` answers 200 with `{"expires_in": seconds left, "access_boundary": null or Google's object}`,
or 400 for a token that is unknown, revoked or expired. An access boundary is that of a downscoped token:
https://cloud.google.com/iam/docs/downscoping-short-lived-credentials.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

_READING_ROLES = {
    f"inRole:roles/storage.{role}"
    for role in ("objectViewer", "objectUser", "objectAdmin", "admin", "legacyObjectReader")
}
_STARTS_WITH = re.compile(r"""resource\.name\.startsWith\((?P<quote>['"])(?P<prefix>[^'"\\]*)(?P=quote)\)""")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grant:
    """What a valid token allows: everything, or what its access boundary leaves.

    Attributes:
        rules: the boundary's `accessBoundaryRules`, None for a token that was not downscoped.
    """

    rules: tuple[Any, ...] | None

    def covers(self, bucket: str, name: str) -> bool:
        """Whether the object may be read."""
        return self.rules is None or any(_rule_covers(rule, bucket, name) for rule in self.rules)


class TokenInfo:
    """Asks one token server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """`session` stays the caller's; `url` is on loopback."""
        self._session = session
        self._url = url

    async def ask(self, token: str) -> Grant | None:
        """What this token allows now; None for one that is not valid, or if the token server does not say."""
        try:
            async with self._session.get(self._url, params={"access_token": token}, allow_redirects=False) as answer:
                return grant_from(await answer.read()) if answer.status == 200 else None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            # Its text may hold the URL and so the token: only its name is told.
            _log.warning("the token server did not answer: %s", type(error).__name__)
            return None


def grant_from(body: bytes) -> Grant | None:
    """Reads the token server's answer; None for a token that has expired, or an answer of another form."""
    try:
        answer = json.loads(body)
        boundary = answer["access_boundary"]
        if not float(answer["expires_in"]) > 0:
            return None
        return Grant(None if boundary is None else tuple(boundary["accessBoundaryRules"]))
    except (ValueError, TypeError, KeyError):
        _log.warning("the token server's answer is not of the expected form")
        return None


def _rule_covers(rule: Any, bucket: str, name: str) -> bool:
    if (
        not isinstance(rule, dict)
        or rule.get("availableResource") != f"//storage.googleapis.com/projects/_/buckets/{bucket}"
    ):
        return False
    permissions = rule.get("availablePermissions")
    if not isinstance(permissions, list) or not _READING_ROLES.intersection(filter(_is_text, permissions)):
        return False
    condition = rule.get("availabilityCondition")
    if condition is None:
        return True
    expression = condition.get("expression") if isinstance(condition, dict) else None
    return isinstance(expression, str) and _holds(expression, f"projects/_/buckets/{bucket}/objects/{name}")


def _holds(expression: str, resource: str) -> bool:
    """Whether one of the alternatives is a prefix of the resource's name; what else conditions may say holds never."""
    alternatives = (_STARTS_WITH.fullmatch(part.strip()) for part in expression.split("||"))
    return any(match is not None and resource.startswith(match["prefix"]) for match in alternatives)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
