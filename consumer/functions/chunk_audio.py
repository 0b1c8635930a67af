"""The audio of chunks on its way into the store: the samples that are still needed, and the objects written of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumer.core.chunks import PlanShape
from consumer.core.documents import D, parse
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.values import BYTES_PER_SAMPLE, Chunk, Span
from consumer.errors import ChangedObject, MissingObject
from consumer.ports import ObjectStore


class ChunkWriter:
    """Puts what the transcriber reads into the work bucket. What is there stands: it came from the same bytes.

    Behind another planner of the same run, the store is asked for each object before its bytes are sent: a planner
    that died after 40 hours has left 5 GB that need not be sent again. The first object that is not there ends the
    questions, because they are written in order.
    """

    def __init__(self, store: ObjectStore, bucket: str, keys: RunKeys) -> None:
        self._store = store
        self._bucket = bucket
        self._keys = keys
        self._follows = False

    def agree(self, wanted: PlanShape) -> PlanShape:
        """The shape of this run: ours, or that of a planner before us, whose settings may have been others.

        Raises UnreadableDocument, as chunks that were cut in another way may be there already.
        """
        data = wanted.model_dump_json().encode()
        if self._store.put_new(self._bucket, self._keys.plan_shape, data, "application/json").created:
            return wanted
        self._follows = True
        return self._document(PlanShape, self._keys.plan_shape)

    def put(self, chunk: Chunk, pcm: PcmBuffer) -> None:
        """The audio first: a plan that is there always finds its audio.

        Raises ChangedObject when a planner before us has stored other audio under this number, UnreadableDocument when
        what it says of that cannot be read.
        """
        audio = pcm.slice(chunk.audio)
        plan = ChunkPlan.of(chunk, hashlib.sha256(audio).hexdigest(), chunk.audio.end if chunk.is_last else None)
        self._put_audio(chunk.index, StoredAudio(len(audio), plan.audio_sha256), audio)
        self._store.put_new(
            self._bucket, self._keys.chunk_plan(chunk.index), plan.model_dump_json().encode(), "application/json"
        )

    def put_sample(self, pcm: bytes) -> None:
        key = self._keys.language_sample
        if not (self._follows and self._size_of(key) == len(pcm)):
            self._store.put_new(self._bucket, key, pcm)

    def _put_audio(self, index: int, ours: StoredAudio, audio: bytes) -> None:
        key = self._keys.chunk_audio(index)
        stored = self._stored(index) if self._follows else None
        if stored is None:
            # A refused write means that another planner is at work, or that our own first answer was lost.
            self._follows = not self._store.put_new(self._bucket, key, audio).created
            stored = self._stored(index) if self._follows else None
        if stored not in (None, ours):
            raise ChangedObject(
                f"{self._bucket}/{key} is not the audio that its recording gives now; keep others out of the work "
                "bucket, run one version of the planner, and send the job again",
                key=key,
            )

    def _stored(self, index: int) -> StoredAudio | None:
        """What is there. Its digest is in its plan; only where a planner died between the two is the audio read."""
        key = self._keys.chunk_audio(index)
        size_bytes = self._size_of(key)
        if size_bytes is None:
            return None
        try:
            plan = self._document(ChunkPlan, self._keys.chunk_plan(index))
        except MissingObject:
            return StoredAudio(size_bytes, self._digest_of(key))
        return StoredAudio(size_bytes, plan.audio_sha256)

    def _document(self, document: type[D], key: str) -> D:
        return parse(document, self._store.get(self._bucket, key), f"{self._bucket}/{key}")

    def _size_of(self, key: str) -> int | None:
        try:
            return self._store.stat(self._bucket, key).size_bytes
        except MissingObject:
            return None

    def _digest_of(self, key: str) -> str:
        digest = hashlib.sha256()
        for block in self._store.stream(self._bucket, key):
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """The audio of a chunk as the store knows it."""

    size_bytes: int
    sha256: str


class PcmBuffer:
    """The samples that are decoded and still needed, as bytes. Spans are counted from the start of the recording."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._start = 0
        self.end = 0

    def append(self, samples: NDArray[np.int16]) -> None:
        self._bytes += samples.astype("<i2", copy=False).data
        self.end += len(samples)

    def slice(self, span: Span) -> bytes:
        with memoryview(self._bytes) as view:
            return bytes(view[self._at(span.start) : self._at(span.end)])

    def drop_before(self, sample: int) -> None:
        """Forget what comes before; a bytearray gives up its front without copying the rest."""
        del self._bytes[: self._at(sample)]
        self._start = max(self._start, sample)

    def _at(self, sample: int) -> int:
        return max(sample - self._start, 0) * BYTES_PER_SAMPLE
