"""Join the chunks of a run: checkpoints in, result files out, the manifest last.

Safe to repeat at any point: files are written only if they are not there yet, and hold nothing that differs between
two writers. Once the manifest is there, a redelivery only reads it and says the same again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath

from consumer.core import checkpoint
from consumer.core.activity import without_gaps
from consumer.core.documents import parse
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.results import ResultManifest, fingerprint_of, models_of, total_timings, warnings_of
from consumer.core.speakers import assign_speakers, speakers_by_channel, turns_by_channel
from consumer.core.speech import Activity, ChunkSpeech, Diarization, Engine
from consumer.core.transcript import Gap, Transcript, in_order
from consumer.core.values import SAMPLE_RATE_HZ, Span
from consumer.core.writers import CONTENT_TYPES, formats_to_write, write
from consumer.errors import LostIntermediate, MissingObject, UnreadableDocument
from consumer.events import Artifact, ClaimCheck, JobStatus, OutputFormat, RunTimings
from consumer.ports import Attempt, ObjectStore
from consumer.work import AssemblyFinished, AssemblyWork, keys_of

log = logging.getLogger(__name__)


class Assemble:
    """`AssemblyWork` to `AssemblyFinished`.

    Raises LostIntermediate when a checkpoint is gone, UnreadableDocument when a manifest is there that is none, the
    store's errors, and what `Engine.join_speakers` raises.
    """

    def __init__(
        self,
        store: ObjectStore,
        work_bucket: str,
        results_bucket: str,
        engine: Engine,
        inline_max_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._work_bucket = work_bucket
        self._results_bucket = results_bucket
        self._engine = engine
        self._inline_max_bytes = inline_max_bytes
        self._clock = clock

    def __call__(self, work: AssemblyWork, attempt: Attempt) -> AssemblyFinished:
        started_s = self._clock()
        keys = keys_of(work)
        manifest = self._stored_manifest(keys) or self._assemble(work, keys, attempt)
        return self._announcement(manifest, keys, self._clock() - started_s)

    def _assemble(self, work: AssemblyWork, keys: RunKeys, attempt: Attempt) -> bytes:
        chunks, diarization = self._read(work, keys, attempt)
        transcript = self._transcript(work, keys, chunks, diarization)
        artifacts = []
        for output_format in formats_to_write(work.options.output_formats, diarized=transcript.diarized):
            attempt.check()
            data = write(output_format, transcript, work.options.subtitles)
            artifacts.append(self._put_artifact(keys, output_format, data))
        manifest = _manifest(work, transcript, chunks, artifacts)
        return self._put_first(keys.manifest, manifest.to_bytes(), "application/json")

    def _read(self, work: AssemblyWork, keys: RunKeys, attempt: Attempt) -> tuple[list[ChunkSpeech], Diarization]:
        """The finished chunks in order, without their activity: it goes to the engine one chunk at a time, because that
        of ten hours takes hundreds of megabytes."""
        chunks: list[ChunkSpeech] = []

        def activities() -> Iterator[Activity]:
            for chunk in self._read_chunks(work, keys, attempt):
                chunks.append(replace(chunk, activity=None))
                if chunk.activity is not None and work.options.tells_voices_apart:
                    yield chunk.activity

        unread = activities()
        diarization = self._diarize(work, unread)
        for _ in unread:
            pass  # an engine need not ask for what is behind the end of the recording
        return chunks, diarization

    def _read_chunks(self, work: AssemblyWork, keys: RunKeys, attempt: Attempt) -> Iterator[ChunkSpeech]:
        """The finished chunks in order. A checkpoint of a failed chunk that came late is left out: the coordinator
        has announced the chunk as failed."""
        for index in range(work.chunks_total):
            if index not in work.chunks_failed:
                attempt.check()
                yield self._read_chunk(keys, index)

    def _read_chunk(self, keys: RunKeys, index: int) -> ChunkSpeech:
        key = keys.checkpoint(index)
        try:
            return checkpoint.decode(self._store.get(self._work_bucket, key))
        except MissingObject as exc:
            raise LostIntermediate(
                f"checkpoint {self._work_bucket}/{key} of chunk {index} is gone; check the lifecycle rules of the "
                "bucket against the age of the job, and force a new run",
                bucket=self._work_bucket,
                key=key,
                chunk_index=index,
            ) from exc

    def _transcript(
        self, work: AssemblyWork, keys: RunKeys, chunks: Sequence[ChunkSpeech], diarization: Diarization
    ) -> Transcript:
        options = work.options
        segments = in_order(segment for chunk in chunks for segment in chunk.segments)
        if options.tells_voices_apart:
            segments = assign_speakers(segments, diarization)
        elif options.diarize.enabled:
            diarization = Diarization(turns=turns_by_channel(segments), exclusive=())
            segments = speakers_by_channel(segments)
        return Transcript(
            segments=segments,
            language=work.language,
            language_probability=work.language_probability,
            duration_s=work.recording.duration_s,
            recording_name=PurePosixPath(work.recording.key).stem,
            diarized=options.diarize.enabled,
            by_channel=options.multichannel,
            turns=diarization.turns,
            embeddings=diarization.embeddings if options.diarize.embeddings else {},
            gaps=tuple(gap for index in work.chunks_failed for gap in self._gap(keys, index)),
        )

    def _diarize(self, work: AssemblyWork, activities: Iterator[Activity]) -> Diarization:
        first = next(activities, None)
        if first is None:
            return Diarization(turns=(), exclusive=())
        recording_samples = round(work.recording.duration_s * SAMPLE_RATE_HZ)
        return self._engine.join_speakers(without_gaps(chain([first], activities)), recording_samples, work.options)

    def _gap(self, keys: RunKeys, index: int) -> tuple[Gap, ...]:
        """Where the text of a failed chunk would be. Without a plan that can be read only the number is known, which
        the manifest has anyway; that is no reason to withhold the rest."""
        try:
            key = keys.chunk_plan(index)
            plan = parse(ChunkPlan, self._store.get(self._work_bucket, key), f"{self._work_bucket}/{key}")
        except (MissingObject, UnreadableDocument):
            return ()
        span = Span(*plan.span)
        return (Gap(span.start_s, span.end_s, index, plan.channel),)

    def _put_artifact(self, keys: RunKeys, output_format: OutputFormat, data: bytes) -> Artifact:
        key = keys.artifact(output_format.value)
        stored = self._put_first(key, data, CONTENT_TYPES[output_format])
        return Artifact(format=output_format.value, claim_check=self._claim_check(key, stored))

    def _put_first(self, key: str, data: bytes, content_type: str) -> bytes:
        """Write unless it is there; the bytes that stand, ours or those of the writer before us."""
        if self._store.put_new(self._results_bucket, key, data, content_type).created:
            return data
        stored = self._store.get(self._results_bucket, key)
        if stored != data:
            log.warning("Another writer's result file differs; it stands", extra={"key": key})
        return stored

    def _stored_manifest(self, keys: RunKeys) -> bytes | None:
        try:
            return self._store.get(self._results_bucket, keys.manifest)
        except MissingObject:
            return None

    def _announcement(self, data: bytes, keys: RunKeys, assemble_s: float) -> AssemblyFinished:
        """Built from the manifest alone, so that a redelivery gives the same answer."""
        manifest = ResultManifest.from_bytes(data, f"{self._results_bucket}/{keys.manifest}")
        times = manifest.timings
        return AssemblyFinished(
            job_id=manifest.job_id,
            run=manifest.run,
            manifest=self._claim_check(keys.manifest, data),
            artifacts=manifest.artifacts,
            transcript_inline=self._inline(manifest),
            speakers=manifest.speakers,
            models=manifest.models,
            fingerprint=manifest.fingerprint,
            timings=RunTimings(
                transcribe_s=times.transcribe_s,
                align_s=times.align_s,
                diarize_s=times.diarize_s,
                assemble_s=round(assemble_s, 3),
            ),
            warnings=manifest.warnings,
        )

    def _inline(self, manifest: ResultManifest) -> str | None:
        """transcript.json where it is small, still there (a redelivery may come after its retention) and a text (it may
        be foreign, and then stands)."""
        artifact = manifest.artifact(OutputFormat.JSON.value)
        if artifact is None or artifact.claim_check.size_bytes > self._inline_max_bytes:
            return None
        try:
            return self._store.get(artifact.claim_check.bucket, artifact.claim_check.key).decode()
        except (MissingObject, UnicodeDecodeError):
            return None

    def _claim_check(self, key: str, data: bytes) -> ClaimCheck:
        return ClaimCheck(
            bucket=self._results_bucket, key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )


def _manifest(
    work: AssemblyWork, transcript: Transcript, chunks: Sequence[ChunkSpeech], artifacts: Sequence[Artifact]
) -> ResultManifest:
    return ResultManifest(
        job_id=work.job_id,
        run=work.run,
        status=JobStatus.PARTIAL if work.chunks_failed else JobStatus.COMPLETED,
        request_digest=work.request_digest,
        recording=work.recording,
        options=work.options,
        language=work.language,
        language_probability=work.language_probability,
        speakers=transcript.speakers,
        models=models_of(chunks),
        fingerprint=fingerprint_of(chunks),
        chunks_total=work.chunks_total,
        chunks_failed=work.chunks_failed,
        artifacts=tuple(artifacts),
        timings=total_timings(chunks),
        warnings=warnings_of(work.warnings, chunks, work.chunks_failed),
        metadata=work.metadata,
    )
