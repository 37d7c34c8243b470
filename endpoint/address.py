"""Host names of endpoints: which are this machine's own, and so may be spoken to in plain text."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_TLS_PORT = 443
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


class Address(NamedTuple):
    """A parsed host."""

    target: str
    """What gRPC connects to. Loopback addresses are given as addresses, so that no name service can redirect them."""
    is_loopback: bool
    """Whether plain text is allowed: 127.0.0.0/8, ::1 and `localhost`; nothing else."""

    @property
    def url(self) -> str:
        """Scheme, host and port for HTTP; plain text on loopback only."""
        if self.is_loopback:
            return f"http://{self.target.partition(':')[2]}"
        return f"https://{self.target}"


def parse_host(host: str) -> Address:
    """Reads `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`; the port is 443 unless given.

    Raises:
        ValueError: for anything else, and for a loopback host without a port.
    """
    match = _HOST.fullmatch(host)
    if not match or (match["port"] and not 0 < int(match["port"]) < 65536):
        raise ValueError(
            f"endpoint host {host!r}: expected a host name with or without a port and no scheme, "
            "such as us-west1-aiplatform.googleapis.com or 127.0.0.1:8080"
        )
    name = match["name"].strip("[]")
    port = int(match["port"] or _TLS_PORT)
    address = _as_ip_address("127.0.0.1" if name.lower() == "localhost" else name)
    if address is None or not address.is_loopback:
        return Address(f"{match['name']}:{port}", is_loopback=False)
    if match["port"] is None:
        raise ValueError(f"endpoint host {host!r}: a loopback host needs its port, such as {host}:8080")
    if address.version == 6:
        return Address(f"ipv6:[{address}]:{port}", is_loopback=True)
    return Address(f"ipv4:{address}:{port}", is_loopback=True)


def _as_ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
