"""Logs without tokens, bodies and headers, however much is logged."""

from __future__ import annotations

import logging
import os
import sys

from endpoint.errors import RunEnded

_SILENT = ("google.auth", "google.oauth2")
"""What they have to say of failures is said in this package's own words."""
_NO_DEBUG = ("google", "grpc", "requests", "urllib3", "httplib2", "aiohttp", "asyncio")
_KNOWN = (
    # They log requests and answers. Named here because a logger that nobody has asked for yet cannot be filtered.
    "google.auth._default",
    "google.auth._regional_access_boundary_utils",
    "google.auth._refresh_worker",
    "google.auth.aio.transport.aiohttp",
    "google.auth.compute_engine._metadata",
    "google.auth.compute_engine.credentials",
    "google.auth.credentials",
    "google.auth.external_account",
    "google.auth.external_account_authorized_user",
    "google.auth.impersonated_credentials",
    "google.auth.transport._http_client",
    "google.auth.transport.grpc",
    "google.auth.transport.requests",
    "google.auth.transport.urllib3",
    "google.oauth2._client",
    "google.oauth2.credentials",
    "google.oauth2.service_account",
    "google.api_core.retry.retry_base",
    "google.cloud.aiplatform_v1.services.job_service.client",
    "google.cloud.aiplatform_v1.services.job_service.transports.grpc",
    "google.cloud.aiplatform_v1.services.job_service.transports.rest",
    "google.cloud.aiplatform_v1.services.prediction_service.client",
    "google.cloud.aiplatform_v1.services.prediction_service.transports.grpc",
    "google.cloud.storage._http",
    "google.cloud.storage.blob",
    "grpc._channel",
    "grpc._plugin_wrapping",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.util.retry",
)


def keep_secrets_out_of_logs() -> None:
    """Silences google-auth's loggers, and below INFO those of all that carries requests; may be called again and again.

    To be called first thing in each process, the launcher's as well as workers'. Levels that are set later are of no
    effect on loggers that are known by then. `GRPC_TRACE`, with which gRPC itself prints headers, is taken out of the
    environment; gRPC reads it when it is imported.

    Raises:
        RunEnded: if gRPC has been imported with `GRPC_TRACE` set.
    """
    if os.environ.pop("GRPC_TRACE", "") and "grpc" in sys.modules:
        raise RunEnded(
            "GRPC_TRACE is set, with which gRPC prints access tokens and audio; unset it (GRPC_VERBOSITY may stay)."
        )
    # The environment may have given "google" or a logger below it a level and a handler of its own:
    # GOOGLE_SDK_PYTHON_LOGGING_SCOPE, see google.api_core.client_logging.
    for names, lowest in ((_NO_DEBUG, logging.INFO), (_SILENT, logging.CRITICAL + 1)):
        for name in names:
            logging.getLogger(name).setLevel(lowest)
    for name in {*_SILENT, *_NO_DEBUG, *_KNOWN, *filter(_is_ours_to_quieten, list(logging.root.manager.loggerDict))}:
        _pin(logging.getLogger(name))


class _Lowest(logging.Filter):
    """Drops records below a level, whatever the logger's own: levels are easily set, filters are not removed."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


def _pin(logger: logging.Logger) -> None:
    if not any(isinstance(present, _Lowest) for present in logger.filters):
        logger.addFilter(_Lowest(logging.CRITICAL + 1 if _is_within(logger.name, _SILENT) else logging.INFO))


def _is_ours_to_quieten(name: str) -> bool:
    return _is_within(name, _NO_DEBUG)


def _is_within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
