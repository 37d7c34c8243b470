"""What can go wrong between this client and an endpoint, as one tree of exceptions.

    EndpointError
    ├── BadAnswer          the service answered, but not with one embedding for each clip; asking again may help
    ├── TokenUnavailable   there is no access token just now; asking again later may help
    └── RunEnded           nothing more can be sent in this run: wrong endpoint, format, permission, credentials
        ├── ClientClosed           the client was closed while batches were waiting for their answers
        ├── BudgetSpent            all requests that the run may send were sent; not a fault, another run goes on
        ├── RequestCountLost       nobody knows how many requests the run has sent (see `request_budget.py`)
        ├── PrivateFolderUnusable  the folder that processes share is not private (see `private_folder.py`)
        ├── JobUnreachable         the service of batch prediction jobs does not answer; what it was asked for may be done
        └── JobRefused             that service said no; nothing has come of what it was asked for
            ├── JobNotCreated      it will not have such a job, now or later
            └── JobMissing         there is no such job

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


class TokenUnavailable(EndpointError):
    """No access token can be had at present, for a reason that passes: the sign-in service is busy or out of reach."""


class RunEnded(EndpointError):
    """Ends the whole run; `message` is one sentence that names the endpoint, the reason and the remedy."""


class ClientClosed(RunEnded):
    """The client was closed; batches without an answer by then are not embedded, and not failed either."""


class BudgetSpent(RunEnded):
    """The run has sent as many requests as `max_requests` allows; what has no answer is left for another run."""


class RequestCountLost(RunEnded):
    """How many requests the run has sent is not known any more, and so it sends none; names the file and the remedy."""


class JobUnreachable(RunEnded):
    """Batch prediction jobs cannot be asked about, or asked for, just now; the same command goes on from there."""


class JobRefused(RunEnded):
    """The service of batch prediction jobs refused what it was asked for, and nothing has come of it."""


class JobNotCreated(JobRefused):
    """The service will not create the job as it is asked for, now or later: nothing needs to be kept for it."""


class JobMissing(JobRefused):
    """There is no job of that name: it was deleted, or never was."""
