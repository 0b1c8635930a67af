"""docs/errors.md: the codes from the classes in errors.py, and for each what a person can do."""

from __future__ import annotations

from collections.abc import Iterator

from consumer import errors
from consumer.errors import WhisperXError

BRANCHES: tuple[tuple[type[WhisperXError], str], ...] = (
    (errors.Rejected, "The same input would fail again: the job fails at once, or the event becomes a dead letter."),
    (errors.Unavailable, "May work soon: tried again in place, then by the coordinator, up to the limit of attempts."),
    (errors.Stopped, "Nothing is wrong: nobody wants the work now, or somebody else does it."),
    (errors.BrokenWorker, "The process ends without committing and starts again; finished chunks are kept."),
    (errors.Misconfigured, "Found at start. The program ends with status 78 and says which setting."),
)

ADVICE: dict[str, tuple[str, str]] = {
    # code: (meaning where the class has no line of its own, what to do)
    "INTERNAL": ("A bug.", "Report it with the log line and its trace."),
    "REJECTED": ("", "See the message."),
    "EVENT_UNREADABLE": ("", "Read it with `whisperx-jobs dead-letters`; correct the sender's format; send it again."),
    "EVENT_INVALID": ("", "Correct the named field and send the event again."),
    "OPTION_UNKNOWN": ("", "Remove the named option, or spell it as in the schema of JobRequested."),
    "OPTION_INVALID": ("", "Give the named option a value within its bounds."),
    "JOB_CONFLICT": ("", "Use a new job id or idempotency key for another recording or other options."),
    "NOTHING_TO_RETRY": ("", "Look at the newest result of the job; a completed job is done anew with force."),
    "MODEL_NOT_ALLOWED": ("", "Ask for an allowed model, or add it to WHISPERX_MODELS__ALLOWED and install it."),
    "DELETION_NOT_ALLOWED": (
        "",
        "Leave options.delete_recording out, or let the operators set WHISPERX_LIMITS__MAY_DELETE_RECORDINGS.",
    ),
    "BUCKET_MISSING": ("The bucket does not exist.", "Correct the name, or make the bucket."),
    "OBJECT_MISSING": ("", "Upload first, send the job afterwards; check key and version."),
    "ACCESS_DENIED": (
        "Jobs may not read this place, or the store refuses our credentials for it.",
        "Let the service's credentials read the bucket; have WHISPERX_LIMITS__ALLOWED_BUCKETS name it or its prefix.",
    ),
    "OBJECT_ENCRYPTED": (
        "",
        "Store recordings with SSE-S3 or SSE-KMS. For results: set WHISPERX_STORE__ENCRYPTION=sse-c and the SSE_C_KEY "
        "that they were written with.",
    ),
    "OBJECT_CHANGED": ("", "Send the job again without the etag, or with the new one."),
    "RECORDING_MISSING": ("The recording does not exist.", "Upload first, send the job afterwards."),
    "SOURCE_CHANGED": ("", "Write each recording once, under its own key; send the job again."),
    "RECORDING_EMPTY": ("", "Check the upload."),
    "RECORDING_TOO_LARGE": (
        "The recording is larger than the limit.",
        "Compress or split it, or raise WHISPERX_LIMITS__MAX_RECORDING_BYTES.",
    ),
    "RECORDING_TOO_LONG": (
        "The recording is longer than the limit.",
        "Split it, or raise WHISPERX_LIMITS__MAX_DURATION_S.",
    ),
    "MEDIA_UNSUPPORTED": ("", "Convert it, for example to FLAC, Opus, MP3 or WAV."),
    "NO_SOUND_TRACK": ("The file has no sound track.", "Check the file."),
    "TRACK_MISSING": ("", "Count the sound tracks of the file from 0 (`ffprobe` lists them), or leave out `track`."),
    "TOO_MANY_CHANNELS": (
        "",
        "Send the job without `multichannel`, or raise WHISPERX_LIMITS__MAX_TRANSCRIBED_CHANNELS.",
    ),
    "AUDIO_UNREADABLE": ("", "Play the file; convert it again from its source."),
    "DECODER_LIMIT": ("", "Convert the file; if it is honest and merely large, raise the limits."),
    "NO_ALIGNER": ("", "Allow segment times (`on_missing_aligner`), or set WHISPERX_MODELS__ALIGN_MODELS."),
    "DEADLINE_PASSED": (
        "The job's deadline passed before it was done.",
        "Send it again with a later deadline, or add workers.",
    ),
    "WORKER_KILLED": ("", "Look at the log of the dead pod (out of memory?); then retry the job."),
    "INTERMEDIATE_MISSING": ("", "Make the work bucket's lifecycle longer than the longest job; retry the job."),
    "DOCUMENT_UNREADABLE": (
        "",
        "Keep others out of the work and results buckets, finish an upgrade that is half done; then retry the job, "
        "which begins anew.",
    ),
    "RUN_ENDED": ("", "Nothing; raise offsets.retention.minutes on the brokers if it happens often."),
    "JOB_EXPIRED": ("", "Retry the job; raise WHISPERX_TOPICS__WORK_RETENTION_HOURS or add workers."),
    "UNAVAILABLE": ("", "See the message."),
    "DEPENDENCY_AWAY": ("", "Look at the server that the message names; work goes on by itself."),
    "STORE_UNAVAILABLE": ("The object store does not answer.", "Look at the store; work goes on by itself."),
    "BROKER_UNAVAILABLE": ("The brokers do not answer.", "Look at the brokers; work goes on by itself."),
    "BROKER_LOGIN_REFUSED": (
        "",
        "Correct the login or the certificates that the message names (docs/kafka.md, Security) and restart; no job "
        "fails meanwhile, work waits.",
    ),
    "BROKER_NOT_AUTHORIZED": (
        "",
        "Allow what the message names: `whisperx-consumer topics acls` prints all that is needed; work goes on by "
        "itself.",
    ),
    "CREDENTIALS_REFUSED": (
        "",
        "Correct WHISPERX_STORE__ACCESS_KEY and SECRET_KEY and restart; no job fails meanwhile, work waits. A "
        "worker that starts so ends with status 78.",
    ),
    "ENCRYPTION_REFUSED": (
        "",
        "Correct WHISPERX_STORE__ENCRYPTION and KMS_KEY_ID, or give the store its KMS; no job fails meanwhile, work "
        "waits.",
    ),
    "REGISTRY_UNAVAILABLE": ("The schema registry does not answer.", "Look at the registry; work goes on by itself."),
    "GPU_OUT_OF_MEMORY": (
        "",
        "Lower WHISPERX_DEVICE__BATCH_SIZE, take a smaller model, or keep the GPU to one process.",
    ),
    "DECODER_CRASHED": ("", "If it stays so for one recording, convert the recording; report it with the file."),
    "STOPPED": ("", "Nothing."),
    "CANCELLED": ("", "Nothing; retry the job to have it done after all."),
    "SUPERSEDED": ("", "Read the result of the newer run."),
    "ABANDONED": ("", "Nothing."),
    "WORKER_BROKEN": ("", "If it repeats, look at the node."),
    "GPU_CONTEXT_BROKEN": (
        "The CUDA context is broken; every later call would fail.",
        "If it repeats, look at the GPU: `nvidia-smi -q -d ECC`, Xid lines in the kernel log.",
    ),
    "FENCED": (
        "",
        "Nothing if it happens once; if it repeats, two processes share one name, or one is stopped for long times.",
    ),
    "MISCONFIGURED": ("", "Correct the setting that the message names; `whisperx-consumer doctor` checks them all."),
    "MODEL_MISSING": (
        "A model of the allow-list is not installed.",
        "Install it (docs/models.md says how), or take it off WHISPERX_MODELS__ALLOWED.",
    ),
    "TOPIC_MISSING": ("A topic does not exist.", "Run `whisperx-consumer topics create`."),
}

WARNINGS: dict[str, tuple[str, str]] = {
    # What a result carries in `warnings`: the job went on, and a reader should know.
    "NO_SPEECH": ("No window of speech was found; the transcript is empty.", "Listen to it; lower `vad.onset`."),
    "RECORDING_TRUNCATED": ("The file breaks off; what there is was transcribed.", "Check the upload."),
    "RECORDING_DAMAGED": ("Parts of the sound could not be decoded and were skipped.", "Check the file."),
    "CHANNELS_CHANGE": (
        "A multichannel job whose recording changes its number of channels: missing ones are silent, further ones are "
        "mixed to the others.",
        "Record all of it in one way, or send the job without `multichannel`.",
    ),
    "PROMPT_TRUNCATED": ("hotwords and initial_prompt were cut to what the model takes.", "Give fewer words."),
    "NO_ALIGNER": ("No alignment model for the language; words have no times of their own.", "Add one to the models."),
    "GPU_MEMORY_SHORT": ("GPU memory ran short; smaller batches or the CPU were used.", "Lower the batch size."),
    "MIXED_FINGERPRINTS": (
        "Chunks were computed with different models, devices or number types.",
        "Let a rollout end before big jobs; send the job again if it matters.",
    ),
    "CHUNKS_MISSING": ("A partial result: the chunks named are not in it.", "See the reason of the first of them."),
    "WARNINGS_OMITTED": ("There were more warnings than a result carries.", "See the log."),
}


def reference_markdown() -> str:
    """The text of docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "The codes in results, dead letters, logs and metrics. Generated from `consumer/errors.py` and",
        "`consumer/errors_reference.py`; do not edit. A code never changes its meaning.",
    ]
    for branch, consequence in BRANCHES:
        lines += [
            "",
            f"## {branch.__name__}",
            "",
            consequence,
            "",
            "| Code | Meaning | What to do |",
            "| --- | --- | --- |",
        ]
        lines += [_row(error) for error in _tree(branch)]
    lines += ["", "## Warnings", "", "The job went on. They stand in `warnings` of results and chunks.", ""]
    lines += ["| Code | Meaning | What to do |", "| --- | --- | --- |"]
    lines += [f"| `{code}` | {meaning} | {todo} |" for code, (meaning, todo) in WARNINGS.items()]
    lines += ["", "## Anything else", "", _row_of_bugs(), ""]
    return "\n".join(lines)


def classes() -> list[type[WhisperXError]]:
    """Every error class, the root included."""
    return list(_tree(WhisperXError))


def _tree(root: type[WhisperXError]) -> Iterator[type[WhisperXError]]:
    yield root
    for branch in root.__subclasses__():
        if branch.__module__ == root.__module__:
            yield from _tree(branch)


def _row(error: type[WhisperXError]) -> str:
    meaning, todo = ADVICE[error.code]
    return f"| `{error.code}` | {meaning or ' '.join((error.__doc__ or '').split())} | {todo} |"


def _row_of_bugs() -> str:
    meaning, todo = ADVICE[WhisperXError.code]
    return f"`{WhisperXError.code}`: {meaning} {todo} The process ends without committing and starts again."
