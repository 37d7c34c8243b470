"""Single calls of Vertex AI's job service with the official client, over this project's own connections.

The client's defaults are not used: no call is repeated, each has a time limit, and neither .netrc nor a redirect gets at
the authorization header.
"""

from __future__ import annotations

import http.cookiejar
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import requests

from endpoint.address import parse_host
from endpoint.channel import open_loopback_channel, open_tls_channel
from endpoint.credentials import CallCredentials, default_credentials
from endpoint.errors import EndpointError, TokenUnavailable
from endpoint.job_settings import JobSettings
from endpoint.rest_failure import failed
from endpoint.retry import is_retryable, retry_hint_s

CALL_TIMEOUT_S = 60.0
"""Of a call over gRPC; over REST of each silence in it."""
_PAGE = 100


@dataclass(frozen=True, slots=True)
class JobReply:
    """What came of a call."""

    code: grpc.StatusCode
    """OK, or how the call failed, be it at the service or on the way."""
    message: Any = field(default=None, repr=False)
    """The official client's message, if the code is OK."""
    retry_after_s: float | None = None
    """How long the service asks to wait before the next call."""
    was_sent: bool = True
    """False if it failed before anything was sent."""

    @property
    def leaves_open(self) -> bool:
        """Whether the service may have done what it was asked for all the same: the failure says nothing about that."""
        return self.was_sent and is_retryable(self.code) and self.code is not grpc.StatusCode.RESOURCE_EXHAUSTED


class JobCalls:
    """The client; plain text and no credentials on loopback, TLS and Google credentials elsewhere.

    Args:
        settings: names host and transport.
        credentials: for hosts other than loopback; those that the settings name unless given.
        root_certificates: see `channel.open_tls_channel`; over gRPC only.
        server_name: see there.

    Raises:
        RunEnded: if credentials are needed and there are none.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        credentials: CallCredentials | None = None,
        root_certificates: bytes | None = None,
        server_name: str | None = None,
    ) -> None:
        address = parse_host(settings.host)
        self._credentials: CallCredentials | None = None
        if not address.is_loopback:
            self._credentials = credentials or CallCredentials(default_credentials(settings.service_account))
        # Imported late: 2 to 5 s and 140 MB, which runs without a job can do without.
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.aiplatform_v1 import JobServiceClient
        from google.cloud.aiplatform_v1.services.job_service import transports

        if settings.transport == "rest":
            transport = transports.JobServiceRestTransport(host=address.url, credentials=AnonymousCredentials())
            _prepare(transport._session, self._credentials)
        elif self._credentials is None:
            transport = transports.JobServiceGrpcTransport(channel=open_loopback_channel(settings.host))
        else:
            channel = open_tls_channel(
                settings.host, self._credentials, root_certificates=root_certificates, server_name=server_name
            )
            transport = transports.JobServiceGrpcTransport(channel=channel)
        self._client = JobServiceClient(transport=transport)

    def create(self, parent: str, job: Any) -> JobReply:
        """Asks for a job (a `BatchPredictionJob`); the message of the reply is the job as it was created."""
        return _named(
            self._reply(
                lambda: self._client.create_batch_prediction_job(
                    parent=parent, batch_prediction_job=job, retry=None, timeout=CALL_TIMEOUT_S
                )
            )
        )

    def cancel(self, name: str) -> JobReply:
        """Asks for a job to be cancelled; the reply has no message."""
        return self._reply(
            lambda: self._client.cancel_batch_prediction_job(name=name, retry=None, timeout=CALL_TIMEOUT_S)
        )

    def get(self, name: str) -> JobReply:
        """Asks for one job."""
        return _named(
            self._reply(lambda: self._client.get_batch_prediction_job(name=name, retry=None, timeout=CALL_TIMEOUT_S))
        )

    def page(self, parent: str, condition: str, token: str) -> JobReply:
        """Asks for some of the jobs that meet a condition (a `ListBatchPredictionJobsResponse`), the first with no token."""
        request = {"parent": parent, "filter": condition, "page_size": _PAGE, "page_token": token}
        return self._reply(
            lambda: next(
                iter(self._client.list_batch_prediction_jobs(request, retry=None, timeout=CALL_TIMEOUT_S).pages)
            )
        )

    def renew_credentials(self) -> None:
        """Lets calls from now on carry new credentials, as those in use were refused."""
        if self._credentials is not None:
            self._credentials.renew()

    def close(self) -> None:
        """Releases the connections."""
        self._client.transport.close()

    def _reply(self, call: Callable[[], Any]) -> JobReply:
        """Raises RunEnded if there is no token and will be none."""
        from google.api_core.exceptions import GoogleAPICallError

        # Exceptions of these libraries hold requests and their headers, and so go no further.
        try:
            if self._credentials is not None:
                # gRPC would ask for the token itself, and report its absence as an outage.
                self._credentials.authorization_headers()
            return JobReply(grpc.StatusCode.OK, call())
        except TokenUnavailable:
            return JobReply(grpc.StatusCode.UNAVAILABLE, was_sent=False)
        except EndpointError:
            raise
        except GoogleAPICallError as error:
            return _failure(error.response)
        except requests.TooManyRedirects:
            # Vertex AI redirects nobody: this is another service, or a network's log-in page.
            return JobReply(grpc.StatusCode.UNIMPLEMENTED)
        except requests.Timeout:
            return JobReply(grpc.StatusCode.DEADLINE_EXCEEDED)
        except (requests.RequestException, OSError):
            return JobReply(grpc.StatusCode.UNAVAILABLE)
        except Exception:  # noqa: BLE001 - answers that are no such messages, and whatever else these libraries raise
            return JobReply(grpc.StatusCode.UNKNOWN)


def _named(reply: JobReply) -> JobReply:
    """The reply, if it is a failure or a job with a name; an empty message is no answer."""
    if reply.code is grpc.StatusCode.OK and not reply.message.name:
        return JobReply(grpc.StatusCode.UNKNOWN)
    return reply


def _failure(response: Any) -> JobReply:
    """How a call failed, by the HTTP response or gRPC error that the client's exception holds."""
    if isinstance(response, requests.Response):
        reply = failed(response.status_code, response.headers.get("Retry-After"), response.content)
        return JobReply(reply.code, retry_after_s=reply.retry_after_s)
    if isinstance(response, grpc.Call):
        return JobReply(response.code(), retry_after_s=retry_hint_s(response.trailing_metadata() or ()))
    return JobReply(grpc.StatusCode.UNKNOWN)


def _prepare(session: Any, credentials: CallCredentials | None) -> None:
    """Lets the session that the client made for itself sign by these credentials, and do nothing of its own accord."""
    if credentials is None:
        # The host is this machine: neither proxies nor .netrc. Elsewhere the environment's proxies are used.
        session.trust_env = False
    else:
        session.auth = _Signature(credentials)
    # google-auth's: after a 401 it would renew its credentials, which are none, and send again.
    session._max_refresh_attempts = 0
    session.max_redirects = 0
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))


class _Signature(requests.auth.AuthBase):
    """Signs requests; as any `auth`, it keeps `requests` from doing so with what .netrc holds."""

    def __init__(self, credentials: CallCredentials) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._credentials.authorization_headers())
        return request
