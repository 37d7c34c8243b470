"""Tokens cut down to reading objects of one bucket, or of one prefix in it (Credential Access Boundaries).

https://cloud.google.com/iam/docs/downscoping-short-lived-credentials
"""

from __future__ import annotations

from collections.abc import Callable

from google.auth import downscoped as google_downscoped

from endpoint.borrowed import BorrowedCredentials
from endpoint.token_source import TokenSource

_ROLE = "inRole:roles/storage.objectViewer"


def downscoped(
    source: TokenSource, bucket: str, prefix: str, *, margin_s: float, clock: Callable[[], float]
) -> TokenSource:
    """Tokens of `source` that can do no more than read objects of the bucket whose names begin with the prefix."""
    credentials = google_downscoped.Credentials(
        BorrowedCredentials(source, margin_s), google_downscoped.CredentialAccessBoundary([_rule(bucket, prefix)])
    )

    def explain(status: int | None) -> str:
        reason = "" if status is None else f" (HTTP {status})"
        return (
            f"No token could be had that reads gs://{bucket} and nothing else{reason}; check that the bucket's name is "
            "right and that it has uniform bucket-level access, or send tokens of full scope with --full_scope_tokens."
        )

    return TokenSource(credentials, explain, parent=source, clock=clock)


def _rule(bucket: str, prefix: str) -> google_downscoped.AccessBoundaryRule:
    condition = None
    if prefix:
        name = f"projects/_/buckets/{bucket}/objects/{prefix}".replace("\\", "\\\\").replace("'", "\\'")
        condition = google_downscoped.AvailabilityCondition(f"resource.name.startsWith('{name}')")
    return google_downscoped.AccessBoundaryRule(
        available_resource=f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        available_permissions=[_ROLE],
        availability_condition=condition,
    )
