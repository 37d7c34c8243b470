"""Addresses of other local servers: nothing but this machine is ever spoken to, and never with a token elsewhere."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback_url(url: str) -> bool:
    """Whether this is a plain `http` URL of this machine, without credentials in it."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.scheme != "http" or parts.username is not None or parts.fragment or not has_port or not url.isprintable():
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def storage_address(text: str) -> str | None:
    """A storage server's address as `http://HOST:PORT`, which may come without its scheme; None if it is not such."""
    url = text if "://" in text else f"http://{text}"
    is_address = is_loopback_url(url) and urlsplit(url).path in {"", "/"} and not urlsplit(url).query
    return url.rstrip("/") if is_address else None
