"""What refuses a request whatever it holds: permissions that were lost, faults that were drawn, the quota."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from emulator.arrivals import Arrival
from emulator.faults import Faults
from emulator.quota import Quota
from emulator.refusals import RefusalError
from emulator.values import Request


class Door:
    """Lets requests in, one after another."""

    def __init__(self, faults: Faults, quota: Quota | None) -> None:
        self._faults = faults
        self._quota = quota

    @contextmanager
    def entered(self, arrival: Arrival, request: Request) -> Iterator[str | None]:
        """Within it, a request is admitted; gives the fault that its answer is to have, if any.

        A request that is refused within it, before it is logged as accepted, has used no quota.

        Raises:
            RefusalError: it is not admitted.
        """
        lost = self._faults.lost(arrival.number, request.endpoint)
        if lost is not None:
            arrival.fault, refusal = lost
            raise refusal
        fault = self._faults.drawn(arrival.number)
        drawn = None if fault is None else self._faults.refusal(fault, request.instances)
        if drawn is not None:
            arrival.fault = fault
            raise drawn
        if self._quota is None:
            yield fault
            return
        wait_s = self._quota.take(arrival.t_s)
        if wait_s > 0:
            message = "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_minute."
            raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, wait_s)
        try:
            yield fault
        except BaseException:
            if not arrival.is_logged:
                self._quota.give_back(arrival.t_s)
            raise
