"""What receipts say about recordings: which clips are settled, and which segments are done."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rows.model import Census, ClipReference, FailureRow, Receipt


class Held:
    """What a checkpoint holds of some segments, by their receipts.

    Of a clip that was embedded more than once (a bundle was tried again) the first row counts, by run and file; an
    embedding counts more than a failure, and of failures and censuses the latest run's.
    """

    def __init__(self, receipts: Iterable[Receipt]) -> None:
        self.embedded: dict[str, tuple[str, ClipReference]] = {}
        """File and place of each embedded clip's row, by the clip's id."""
        self._clip_failures: dict[str, FailureRow] = {}
        self._censuses: dict[str, tuple[str, Census]] = {}
        self._segment_failures: dict[tuple[str, str], dict[str, FailureRow]] = {}
        for receipt in sorted(receipts, key=lambda receipt: (receipt.run_id, receipt.file)):
            for reference in receipt.clips:
                self.embedded.setdefault(reference.clip_id, (receipt.file, reference))
            of_segment = self._segment_failures.setdefault((receipt.segment_id, receipt.run_id), {})
            for failure in receipt.failures:
                if failure.clip_id is None:
                    of_segment.setdefault(failure.code, failure)
                else:
                    self._clip_failures[failure.clip_id] = failure
            if receipt.census is not None:
                self._censuses[receipt.segment_id] = receipt.run_id, receipt.census

    def census(self, segment_id: str) -> Census | None:
        """What the latest run that decoded the segment to its end found; None if there was none."""
        found = self._censuses.get(segment_id)
        return None if found is None else found[1]

    def clip_failure(self, clip_id: str) -> FailureRow | None:
        """Why a clip is not embedded, if it failed; also of clips that were embedded in another run."""
        return self._clip_failures.get(clip_id)

    def segment_failures(self, segment_id: str) -> list[FailureRow]:
        """Why parts of the segment, or all of it, gave no clips in the run whose census counts; one a code."""
        found = self._censuses.get(segment_id)
        return [] if found is None else list(self._segment_failures[segment_id, found[0]].values())

    def settled(self, *, retry_failed: bool) -> dict[str, float | None]:
        """The clips that need not be sent: embedded, or failed for good; with their starts in seconds, as far as known.

        Args:
          retry_failed: failures for good are to be sent again, too.
        """
        found: dict[str, float | None] = {clip_id: place[1].start_s for clip_id, place in self.embedded.items()}
        for clip_id, failure in self._clip_failures.items():
            if not (failure.retryable or retry_failed):
                found.setdefault(clip_id, failure.start_s)
        return found

    def is_done(self, segment_id: str, settled: Container[str], *, retry_failed: bool) -> bool:
        """Whether nothing is left to do for the segment: each of its clips is `settled`, and it need not be read again."""
        census = self.census(segment_id)
        if census is None:
            return False
        for failure in self.segment_failures(segment_id):
            # What could not be fetched, being gone for a while, is there again: it would not be asked for otherwise.
            if failure.retryable or retry_failed or failure.stage == "fetch":
                return False
        return all(clip.clip_id in settled for clip in census.clips)
