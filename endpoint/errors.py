"""What can go wrong between this client and an endpoint, as one tree of exceptions.

    EndpointError
    ├── BadAnswer          the service answered, but not with one embedding for each clip; asking again may help
    └── RunEnded           nothing more can be sent in this run: wrong endpoint, format, permission, credentials
        └── ClientClosed   the client was closed while batches were waiting for their answers

What a service rejects or fails to answer clip by clip is no exception but a `Refused` result (see `results.py`).
Messages are our own words: a service may echo a request, so its text is neither stored nor shown.
"""

from __future__ import annotations


class EndpointError(Exception):
    """Base of everything that this package raises about an endpoint."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadAnswer(EndpointError):
    """An answer that does not hold exactly one embedding of finite floats for each clip; retryable."""


class RunEnded(EndpointError):
    """Ends the whole run; `message` is one sentence that names the endpoint, the reason and the remedy."""


class ClientClosed(RunEnded):
    """The client was closed; batches without an answer by then are not embedded, and not failed either."""
