"""First stage: what is asked of which recording, by inputs or a manifest, and what the checkpoint holds of it."""

from __future__ import annotations

import apache_beam as beam
from apache_beam import pvalue

from audio.listing import absolute_path
from audio.manifest import ManifestProblem, ManifestSettings
from rows.model import FailureRow
from transforms.list_recordings import ListRecordings
from transforms.read_earlier import ReadEarlier
from transforms.read_manifest import ReadManifest


def problem_row(problem: ManifestProblem) -> FailureRow:
    """The failure of a row of the manifest that cannot be used."""
    return FailureRow.at_no_place(problem.uri, "", "manifest", problem.code, problem.message, manifest_row=problem.row)


def _is_outside(uri: str, folder: str) -> bool:
    return not uri.startswith(folder)


class Ask(beam.PTransform):
    """Gathers all that is to be known of recordings before anything is planned.

    Args:
      inputs: files, folders and globs; empty with a manifest.
      manifest: or where a table names the recordings.
      checkpoint: its folder.
      generations: of the checkpoint, that were there at launch.

    Returns a dict of PCollections: `by_uri` (a tuple of them, all keyed by recordings' URIs: see plan_segments.Asked);
    `problems` (FailureRow, of manifest rows that name no recording); `ignored` (URIs of files that are no audio files by
    their extension); `counts` (dicts of numbers).
    """

    def __init__(
        self,
        inputs: tuple[str, ...],
        manifest: ManifestSettings | None,
        checkpoint: str,
        generations: tuple[str, ...],
    ) -> None:
        super().__init__()
        self._inputs = inputs
        self._manifest = manifest
        self._checkpoint = checkpoint
        self._generations = generations

    def expand(self, begin: pvalue.PBegin) -> dict[str, object]:
        nothing = begin | "Nothing" >> beam.Create([])
        by_uri: list[beam.PCollection] = []
        problems = ignored = counts = nothing
        if self._manifest is not None:
            read = begin | "Read manifest" >> ReadManifest(self._manifest)
            failures = read["problems"] | "Say problems" >> beam.Map(problem_row)
            by_uri.append(read["rows"])
            by_uri.append(
                failures
                | "Those of a recording" >> beam.Filter(lambda row: bool(row.recording_uri))
                | "By URI" >> beam.Map(lambda row: (row.recording_uri, row))
            )
            problems = failures | "Those of no recording" >> beam.Filter(lambda row: not row.recording_uri)
        else:
            listed = begin | "List" >> ListRecordings(self._inputs)
            by_uri.append(listed["listed"])
            # Where the output is among the recordings, what runs have stored is no news.
            own = self._checkpoint if self._checkpoint.startswith("gs://") else absolute_path(self._checkpoint)
            ignored = listed["ignored"] | "Leave out the checkpoint" >> beam.Filter(_is_outside, f"{own}/")
        if self._generations:
            earlier = begin | "Read earlier" >> ReadEarlier(self._checkpoint, self._generations)
            by_uri.append(earlier["receipts"])
            counts = earlier["damaged"] | "Count damaged" >> beam.Map(lambda _: {"damaged_files": 1})
        return {"by_uri": tuple(by_uri), "problems": problems, "ignored": ignored, "counts": counts}
