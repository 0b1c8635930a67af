"""What must hold in the end: everything answered once, transcripts as if nothing had happened, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

from consumer.core.dead_letters import CODE, text_of
from consumer.core.layout import RunKeys
from consumer.errors import Cancelled, ConflictingJob, DeadlinePassed, MissingRecording, Superseded, WorkerKilled
from consumer.events import JobFinished, JobStatus
from tests.model.oracle import run_of
from tests.model.processes import FATAL_ATTEMPTS, RESULTS_BUCKET, ROLES, WORK_BUCKET
from tests.model.speech import CHUNKS, Script
from tests.model.world import Sent, World

WHOLE = (JobStatus.COMPLETED, JobStatus.PARTIAL)


def verdict(world: World) -> Iterator[str]:
    """What is wrong with a world that was healed and has settled."""
    yield from world.oracle.failures
    yield from _dead_letters(world)
    yield from _runs(world)
    for ended in world.oracle.ended.values():
        yield from _ending(world, ended)
        if ended.status in WHOLE:
            yield from _result(world, ended)
    yield from _left_behind(world)


def _dead_letters(world: World) -> Iterator[str]:
    """Exactly the unreadable and the conflicting, unless a record killed its workers."""
    for sent in world.sent:
        code = _parked_with(world, sent.position)
        if code == WorkerKilled.code:
            if world.oracle.suspects[sent.position] < FATAL_ATTEMPTS:
                yield f"{sent} is given up without a reason"
        elif (code is not None) is not _belongs_there(world, sent):
            yield f"{sent} has the dead letter {code}"
        elif code is not None and sent.job_id is not None and code != ConflictingJob.code:
            yield f"{sent} is readable and was parked with {code}"
    for position in world.oracle.parked.keys() - {sent.position for sent in world.sent}:  # of the control topic
        killed = world.oracle.suspects[position] >= FATAL_ATTEMPTS
        if _parked_with(world, position) != WorkerKilled.code or not killed:
            yield f"a dead letter of nobody: {position}"


def _parked_with(world: World, position: tuple[str, int, int]) -> str | None:
    parked = world.oracle.parked.get(position)
    return text_of(parked, CODE) if parked else None


def _runs(world: World) -> Iterator[str]:
    """Numbered without a gap, each ended, as many as were asked for: one for each force, at most one for a retry."""
    for job_id in world.requests:
        runs = sorted(run for name, run in world.oracle.ended if name == job_id)
        accepted = [one for one in world.sent if one.job_id == job_id and one.position not in world.oracle.parked]
        forced = sum(one.force for one in accepted)
        most = forced + (forced < len(accepted)) + world.retries[job_id]
        if runs != list(range(1, len(runs) + 1)) or not forced <= len(runs) <= most:
            yield f"{job_id} has the runs {runs}, {forced} were forced, {most} are the most that were asked for"


def _belongs_there(world: World, sent: Sent) -> bool:
    if sent.job_id is None:
        return True
    if sent.force:
        return False
    if any(one.force and one.job_id == sent.job_id for one in world.sent):
        return sent.position in world.oracle.parked  # either way: the newest run of that moment decides
    ended = world.oracle.ended.get((sent.job_id, 1))
    return ended is not None and ended.options_used is not None and ended.options_used.beam_size != sent.beam_size


def _ending(world: World, ended: JobFinished) -> Iterator[str]:
    """The status has a cause."""
    code = ended.error.code if ended.error else None
    key = world.requests[ended.job_id]["recording"]["key"]
    partial = world.requests[ended.job_id]["options"].get("on_chunk_failure") == "partial"
    killed = _killed(world, ended.job_id)
    lost = world.stage.of(ended.job_id).lost_chunks(key)
    match ended.status:
        case JobStatus.CANCELLED:
            forced = any(one.force and one.job_id == ended.job_id for one in world.sent)
            fine = (ended.job_id in world.cancelled and code == Cancelled.code) or (forced and code == Superseded.code)
        case JobStatus.COMPLETED:
            fine = not lost and key in CHUNKS
        case JobStatus.PARTIAL:
            fine = partial and (bool(lost) or killed)
        case _:
            fine = (
                (key not in CHUNKS and code == MissingRecording.code)
                or (bool(lost) and (not partial or len(lost) == CHUNKS[key] or killed))
                or (killed and code == WorkerKilled.code)
                or (code == DeadlinePassed.code and "deadline_at" in world.requests[ended.job_id])
            )
    if not fine:
        yield f"{ended.job_id} ended {ended.status} with {ended.error} for no reason"


def _killed(world: World, job_id: str) -> bool:
    """Whether the crashes of the sequence alone may have had a record of the job given up."""
    records = (
        world.broker.topics[topic][partition][offset]
        for (topic, partition, offset), times in world.oracle.suspects.items()
        if times >= FATAL_ATTEMPTS
    )
    return any((record.key or b"").decode().split("/")[0] == job_id for record in records)


def _result(world: World, ended: JobFinished) -> Iterator[str]:
    shown = {index for job_id, run, index in world.oracle.partials if (job_id, run) == (ended.job_id, ended.run)}
    if shown != set(range(ended.chunks_total)) - set(ended.chunks_failed):
        yield f"{ended.job_id} ended with the partials {shown}"
    yield from _texts(world, ended)
    if not world.fickle:
        key = world.requests[ended.job_id]["recording"]["key"]
        language = world.requests[ended.job_id]["options"].get("language", "auto")
        if _files(world, ended) != undisturbed(key, language, frozenset(ended.chunks_failed)):
            yield f"the files of {ended.job_id} are not those of an undisturbed run"


def _texts(world: World, ended: JobFinished) -> Iterator[str]:
    """What was shown along the way is what the transcript says."""
    partials = [world.oracle.partials.get((ended.job_id, ended.run, i)) for i in range(ended.chunks_total)]
    shown = [segment.text for partial in partials if partial for segment in partial.segments]
    told = [segment["text"].strip() for segment in json.loads(ended.transcript_inline or "{}").get("segments", ())]
    if shown != told:
        yield f"the partials of {ended.job_id} say {shown}, the transcript {told}"


def _files(world: World, ended: JobFinished) -> dict[str, bytes]:
    keys = RunKeys(ended.job_id, ended.run)
    names = world.store.list_keys(RESULTS_BUCKET, keys.results_prefix)
    return {
        name.removeprefix(keys.results_prefix): world.store.get(RESULTS_BUCKET, name)
        for name in names
        if name != keys.manifest
    }


@cache
def undisturbed(key: str, language: str, failed: frozenset[int]) -> dict[str, bytes]:
    """The result files of a world in which nothing happens."""
    world = World()
    world.stage.scripts["job"] = Script(broken=failed)
    for role in ROLES:
        world.start(role)
    world.submit("job", key=key, options={"on_chunk_failure": "partial", "language": language})
    world.settle()
    assert not world.oracle.failures
    return _files(world, world.oracle.ended["job", 1])


def _left_behind(world: World) -> Iterator[str]:
    """Work of a run that failed is kept, files of a run that gave no result are not.

    What a straggler wrote after the last cleanup is counted: the lifecycle rules of the buckets are for that.
    """
    work_of, files_of = (*WHOLE, JobStatus.CANCELLED), (JobStatus.FAILED, JobStatus.CANCELLED)
    for bucket, removed in ((WORK_BUCKET, work_of), (RESULTS_BUCKET, files_of)):
        for key in world.store.list_keys(bucket, ""):
            ended = world.oracle.ended.get(run_of(key))
            if ended is not None and ended.status not in removed:
                continue
            if key in world.oracle.late:
                world.counts["written_after_cleanup"] += 1
            else:
                yield f"{key} is left behind"
