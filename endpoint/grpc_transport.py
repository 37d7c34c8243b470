"""Requests over gRPC: the `Predict` method called with raw bytes, past the generated client's messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import grpc

from endpoint.address import parse_host
from endpoint.channel import open_loopback_channel, open_tls_channel
from endpoint.credentials import CallCredentials, default_credentials
from endpoint.retry import retry_hint_s
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply, says_response_too_large

METHOD = "/google.cloud.aiplatform.v1.PredictionService/Predict"


class GrpcTransport:
    """A `Transport` over one channel; plain text on loopback, TLS and Google credentials elsewhere.

    Args:
        settings: names the endpoint and its host.
        credentials: for hosts other than loopback; those that the settings name unless given.
        root_certificates: see `channel.open_tls_channel`.
        server_name: see there.

    Raises:
        RunEnded: if credentials are needed and there are none.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        credentials: CallCredentials | None = None,
        root_certificates: bytes | None = None,
        server_name: str | None = None,
    ) -> None:
        if parse_host(settings.host).is_loopback:
            self._credentials = None
            self._channel = open_loopback_channel(settings.host)
        else:
            self._credentials = credentials or CallCredentials(default_credentials(settings.service_account))
            self._channel = open_tls_channel(
                settings.host, self._credentials, root_certificates=root_certificates, server_name=server_name
            )
        self._predict = self._channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        # As the generated client does: Google's front end routes by this header, in which slashes stay as they are.
        self._metadata = (("x-goog-request-params", f"endpoint={quote_plus(settings.name, safe='/')}"),)

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        """See `Transport.send`."""
        # The call lives on through its callback: gRPC cancels calls that nobody refers to.
        call: Any = self._predict.future(request, timeout=timeout_s, metadata=self._metadata)
        call.add_done_callback(lambda call: done(self._reply(call)))

    def renew_credentials(self) -> None:
        """See `Transport.renew_credentials`; without credentials there is nothing to renew."""
        if self._credentials is not None:
            self._credentials.renew()

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()

    def _reply(self, call: Any) -> Reply:
        try:
            return self._read(call)
        except Exception:  # noqa: BLE001 - a request without a reply would be waited for for ever
            return Reply(grpc.StatusCode.UNKNOWN)

    def _read(self, call: Any) -> Reply:
        code = call.code()
        if code is grpc.StatusCode.OK:
            return Reply(code, call.result() or b"")
        if code is grpc.StatusCode.UNAVAILABLE and self._credentials is not None and self._credentials.are_invalid:
            # This is how gRPC reports that there was no token to send.
            code = grpc.StatusCode.UNAUTHENTICATED
        return Reply(
            code,
            retry_after_s=retry_hint_s(call.trailing_metadata() or ()),
            response_too_large=says_response_too_large(code, call.details()),
        )
