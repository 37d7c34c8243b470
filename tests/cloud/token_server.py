"""A real server on loopback that gives out tokens as Google's services do: refresh, exchange, impersonation, introspection.

Paths and messages are those of oauth2.googleapis.com, sts.googleapis.com and iamcredentials.googleapis.com. Its errors echo
what they were sent, tokens included, so that whoever shows them is found out.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["refresh", "exchange", "impersonate"]
Answer = tuple[int, dict[str, Any]]

PREFIX = "ya29.TEST-"
REFRESH_TOKEN = "TEST-refresh-token-of-the-user"
CLIENT_ID, CLIENT_SECRET = "TEST-client-id", "TEST-client-secret"
_IAM = "/v1/projects/-/serviceAccounts/"
_STS_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@dataclass
class Minted:
    """A token that was given out."""

    value: str
    kind: Kind
    account: str
    """`user`, or the impersonated account's email address."""
    expires_s: float
    boundary: dict[str, Any] | None = None
    is_revoked: bool = False


class TokenServer:
    """What the services know and decide; `answer` is called by whatever speaks HTTP.

    Args:
        lifetime_s: of tokens had by a refresh or by impersonation; exchanged ones expire with what they were made of.
        accounts: service accounts that the user may impersonate.
        token_bytes: length of a token.
    """

    def __init__(
        self, *, lifetime_s: float = 3600, accounts: tuple[str, ...] = (), token_bytes: int = 64, url: str = ""
    ) -> None:
        self.lifetime_s = lifetime_s
        self.accounts = accounts
        self.token_bytes = token_bytes
        self.url = url
        self.minted: list[Minted] = []
        self.requests: Counter[str] = Counter()
        """Requests by kind, failed ones included."""
        self.charged: list[str | None] = []
        """The project that each impersonation was to be charged to."""
        self.unknown: list[str] = []
        """Method and path of requests for what this server does not serve."""
        self.is_signed_in = True
        """Whether the user's refresh token is good."""
        self._failures: list[tuple[int, Kind | None]] = []
        self._lock = threading.Lock()

    @property
    def token_info_url(self) -> str:
        """For the local endpoint."""
        return f"{self.url}/tokeninfo"

    @property
    def values(self) -> list[str]:
        """All tokens ever given out."""
        with self._lock:
            return [token.value for token in self.minted]

    def of_kind(self, kind: Kind) -> list[Minted]:
        """The tokens of a kind, oldest first."""
        with self._lock:
            return [token for token in self.minted if token.kind == kind]

    def revoke(self, value: str) -> None:
        """Makes a token invalid from now on; KeyError if there is none such."""
        with self._lock:
            matching = [token for token in self.minted if token.value == value]
            if not matching:
                raise KeyError("no such token")
            matching[0].is_revoked = True

    def revoke_all(self, kind: Kind | None = None) -> int:
        """Makes all tokens (of a kind) invalid; how many were valid."""
        with self._lock:
            valid = [token for token in self.minted if self._is_valid(token) and kind in (None, token.kind)]
            for token in valid:
                token.is_revoked = True
            return len(valid)

    def fail_next(self, requests: int, status: int, kind: Kind | None = None) -> None:
        """Lets the next requests (of a kind) be answered with this status."""
        with self._lock:
            self._failures += [(status, kind)] * requests

    def write_user_file(self, path: Path, **more: str) -> Path:
        """A credentials file of a signed-in user whose refreshes come here."""
        path.write_text(json.dumps({**self._user(), **more}))
        return path

    def write_impersonation_file(self, path: Path, account: str) -> Path:
        """A credentials file as `gcloud auth application-default login --impersonate-service-account` writes it."""
        info = {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": f"{self.url}{_IAM}{account}:generateAccessToken",
            "source_credentials": self._user(),
            "delegates": [],
        }
        path.write_text(json.dumps(info))
        return path

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Status and JSON for a request; names of headers are in lower case."""
        url = urlsplit(path)
        with self._lock:
            if method == "POST" and url.path in ("/token", "/v1/token"):
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                if form.get("grant_type") == "refresh_token":
                    return self._counted("refresh") or self._refresh(form, headers)
                if form.get("grant_type") == _STS_GRANT:
                    return self._counted("exchange") or self._exchange(form)
                return 400, {"error": "unsupported_grant_type"}
            if method == "POST" and url.path.startswith(_IAM) and url.path.endswith(":generateAccessToken"):
                account = unquote(url.path.removeprefix(_IAM).removesuffix(":generateAccessToken"))
                return self._counted("impersonate") or self._impersonate(account, headers, json.loads(body))
            if method == "GET" and url.path == "/tokeninfo":
                self.requests["tokeninfo"] += 1
                return self._introspect(parse_qs(url.query).get("access_token", [""])[0])
            if method == "GET" and url.path == "/control":
                return 200, {"requests": dict(self.requests), "tokens": [token.value for token in self.minted]}
            if not url.path.endswith("/allowedLocations"):
                self.unknown.append(f"{method} {url.path}")
            return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "not found"}}

    def control(self, body: bytes) -> Answer:
        """What other processes ask for: `{"revoke": TOKEN}`, `{"revoke_all": KIND or null}`, `{"fail_next": [N, STATUS]}`."""
        asked = json.loads(body)
        if "revoke" in asked:
            self.revoke(asked["revoke"])
        if "revoke_all" in asked:
            return 200, {"revoked": self.revoke_all(asked["revoke_all"])}
        if "fail_next" in asked:
            self.fail_next(*asked["fail_next"])
        return 200, {}

    def _user(self) -> dict[str, str]:
        return {
            "type": "external_account_authorized_user",
            "audience": "//iam.googleapis.com/locations/global/workforcePools/local/providers/local",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "token_url": f"{self.url}/token",
            "token_info_url": f"{self.url}/tokeninfo",
        }

    def _counted(self, kind: Kind) -> Answer | None:
        self.requests[kind] += 1
        for index, (status, wanted) in enumerate(self._failures):
            if wanted in (None, kind):
                del self._failures[index]
                return status, {"error": "injected", "error_description": self._echo()}
        return None

    def _refresh(self, form: dict[str, str], headers: dict[str, str]) -> Answer:
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if headers.get("authorization") != f"Basic {basic}":
            return 401, {"error": "invalid_client", "error_description": str(headers.get("authorization"))}
        if form.get("refresh_token") != REFRESH_TOKEN or not self.is_signed_in:
            description = f"Token has been expired or revoked: {form.get('refresh_token')} {self._echo()}"
            return 400, {"error": "invalid_grant", "error_description": description}
        token = self._mint("refresh", "user", self.lifetime_s)
        return 200, {"access_token": token.value, "expires_in": int(self.lifetime_s), "token_type": "Bearer"}

    def _exchange(self, form: dict[str, str]) -> Answer:
        subject = self._valid(form.get("subject_token", ""))
        if subject is None or subject.boundary is not None:
            return 400, {"error": "invalid_grant", "error_description": f"bad subject {form.get('subject_token')}"}
        if form.get("subject_token_type") != _ACCESS_TOKEN or form.get("requested_token_type") != _ACCESS_TOKEN:
            return 400, {"error": "invalid_request", "error_description": "token types"}
        boundary = json.loads(unquote(form.get("options", ""))).get("accessBoundary")
        if not boundary or not 1 <= len(boundary["accessBoundaryRules"]) <= 10:
            return 400, {"error": "invalid_request", "error_description": "access boundary"}
        left_s = subject.expires_s - time.monotonic()
        token = self._mint("exchange", subject.account, left_s, boundary)
        return 200, {
            "access_token": token.value,
            "issued_token_type": _ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": int(left_s),
        }

    def _impersonate(self, account: str, headers: dict[str, str], asked: dict[str, Any]) -> Answer:
        self.charged.append(headers.get("x-goog-user-project"))
        caller = self._valid(headers.get("authorization", "").removeprefix("Bearer "))
        if caller is None or caller.boundary is not None:
            return 401, _error(401, "UNAUTHENTICATED", f"bad credentials {headers.get('authorization')}")
        if account not in self.accounts:
            return 403, _error(403, "PERMISSION_DENIED", f"getAccessToken denied to {caller.value}")
        lifetime_s = min(self.lifetime_s, float(asked["lifetime"].removesuffix("s")))
        token = self._mint("impersonate", account, lifetime_s)
        expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=lifetime_s)
        return 200, {"accessToken": token.value, "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _introspect(self, value: str) -> Answer:
        token = self._valid(value)
        if token is None:
            return 400, {"error": "invalid_token"}
        return 200, {"expires_in": token.expires_s - time.monotonic(), "access_boundary": token.boundary}

    def _mint(self, kind: Kind, account: str, lifetime_s: float, boundary: dict[str, Any] | None = None) -> Minted:
        secret = secrets.token_urlsafe(self.token_bytes)[: self.token_bytes - len(PREFIX)]
        token = Minted(PREFIX + secret, kind, account, time.monotonic() + lifetime_s, boundary)
        self.minted.append(token)
        return token

    def _valid(self, value: str) -> Minted | None:
        return next((token for token in self.minted if token.value == value and self._is_valid(token)), None)

    def _is_valid(self, token: Minted) -> bool:
        return not token.is_revoked and token.expires_s > time.monotonic()

    def _echo(self) -> str:
        return self.minted[-1].value if self.minted else f"{PREFIX}never-given-out"


class TokenHandler(BaseHTTPRequestHandler):
    """Speaks HTTP for a `TokenServer`; subclasses say which."""

    protocol_version = "HTTP/1.1"
    tokens: TokenServer

    def do_GET(self) -> None:
        """See `TokenServer.answer`."""
        self.respond(self.tokens.answer("GET", self.path, {}, b""))

    def do_POST(self) -> None:
        """See `TokenServer.answer`."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/control":
            self.respond(self.tokens.control(body))
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.respond(self.tokens.answer("POST", self.path, headers, body))

    def respond(self, answer: Answer) -> None:
        """Sends status and JSON."""
        status, message = answer
        data = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: paths hold tokens."""


def serving(handler: type[BaseHTTPRequestHandler]) -> _Serving:
    """A context in which the handler serves on a free port of 127.0.0.1; gives the port."""
    return _Serving(handler)


class _Serving:
    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serve_tokens(
    *, lifetime_s: float = 3600, accounts: tuple[str, ...] = (), token_bytes: int = 64
) -> Iterator[TokenServer]:
    """A `TokenServer` on loopback, for the time of the context."""
    server = TokenServer(lifetime_s=lifetime_s, accounts=accounts, token_bytes=token_bytes)
    handler = type("Handler", (TokenHandler,), {"tokens": server})
    with serving(handler) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


def _error(code: int, status: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message}}
