"""Channels to endpoints: TLS with credentials to every host, but plain text and no credentials within this machine."""

from __future__ import annotations

import grpc

from endpoint.address import parse_host
from endpoint.credentials import CallCredentials

_OPTIONS = {
    # Retries are the client's own, so that they are counted, bounded and scheduled in one place.
    "grpc.enable_retries": 0,
    "grpc.service_config_disable_resolution": 1,
    # A connection that died silently is noticed after 80 s of an unanswered request, not after the system's 15 minutes.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    # While a connection cannot be made, calls fail at once; so try at least as often as the client sends again.
    "grpc.initial_reconnect_backoff_ms": 500,
    "grpc.max_reconnect_backoff_ms": 10_000,
    "grpc.use_local_subchannel_pool": 1,
    # Answers are 5.6 kB a clip; far more than any endpoint returns, and yet a bound.
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.max_send_message_length": 64 * 1024 * 1024,
}


def open_loopback_channel(host: str) -> grpc.Channel:
    """A channel in plain text, past any proxy.

    Raises:
        ValueError: if the host is not this machine by address; nothing else is ever spoken to in plain text.
    """
    address = parse_host(host)
    if not address.is_loopback:
        raise ValueError(f"endpoint host {host!r} is not a loopback address: plain text is for this machine only")
    return grpc.insecure_channel(address.target, options=_options({"grpc.enable_http_proxy": 0}))


def open_tls_channel(
    host: str,
    credentials: CallCredentials,
    *,
    root_certificates: bytes | None = None,
    server_name: str | None = None,
) -> grpc.Channel:
    """A channel with TLS whose every call carries the credentials.

    Args:
        host: see `address.parse_host`.
        credentials: asked for the authorization header of each call.
        root_certificates: PEM of the authorities to trust instead of the usual ones.
        server_name: the name that the server's certificate must have, if not the host's.
    """
    channel_credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(root_certificates),
        grpc.metadata_call_credentials(credentials, name="hear-google-auth"),
    )
    options: dict[str, int | str] = {} if server_name is None else {"grpc.ssl_target_name_override": server_name}
    return grpc.secure_channel(parse_host(host).target, channel_credentials, options=_options(options))


def _options(more: dict[str, int | str]) -> list[tuple[str, int | str]]:
    return [*_OPTIONS.items(), *more.items()]
