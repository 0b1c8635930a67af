"""Reads the folder of a run into evidence: the journal, the processes' logs and the contents of the topics."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.evidence import (
    Attempted,
    Computation,
    DeadLetter,
    Evidence,
    FaultDone,
    HandOver,
    Headers,
    Life,
    Noted,
    Partial,
    Place,
    Result,
    RunKey,
    Standing,
    Submission,
    Told,
)
from tests.chaos.ground import PREFIX
from tests.chaos.journal import Entry, read_journal
from tests.chaos.paced_engine import BEGUN, COMPUTED
from tests.chaos.scenario import METADATA, REASON, Kind

JOURNAL, CONTENTS, LOGS = "journal.jsonl", "contents.jsonl", "logs"
HANDED_OVER, STORED, AUDIT = "Partitions changed hands", "Chunk transcribed", "Audit"
Fields = dict[str, Any]


def load(folder: Path) -> Evidence:
    """Everything that the run in this folder left behind."""
    journal: dict[str, list[Entry]] = defaultdict(list)
    for entry in read_journal(folder / JOURNAL):
        journal[entry.what].append(entry)
    facts: dict[str, list[Fields]] = defaultdict(list)
    for line in (folder / CONTENTS).read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        facts[found["fact"]].append(found)
    lines = list(_log_lines(folder / LOGS))
    run, drained = journal["run"][0].fields, journal["drained"][0].fields
    return Evidence(
        asked_faults=run["faults"],
        session_timeout_s=run["session_timeout_s"],
        retry_base_s=run["retry_base_s"],
        retry_max_s=run["retry_max_s"],
        lag_zero_after_s=drained["lag_zero_after_s"],
        lag_left=drained["lag_left"],
        submissions=tuple(_submissions(journal["submission"])),
        references={entry.fields["recording"]: entry.fields["artifacts"] for entry in journal["reference"]},
        results=tuple(
            Result(_run(f), f["status"], f["code"], f["chunks_total"], f["artifacts"]) for f in facts["result"]
        ),
        partials=tuple(Partial(_run(f), f["chunk"]) for f in facts["transcribed"] if f["topic"] == "partials"),
        progress=tuple(Told(_run(f), f["sequence"], f["fraction"]) for f in facts["progress"]),
        dead_letters=tuple(
            DeadLetter(_bytes(f["record_key"]), _bytes(f["value"]), _headers(f["headers"]))
            for f in facts["dead-letter"]
        ),
        attempts=tuple(_attempt(f) for f in (*facts["work"], *facts["failure"])),
        noted=tuple(_noted(f, f["id"], _bytes(f["said"])) for f in facts["noted"]),
        logged=tuple(_logged(line) for _, line in lines if line["message"] == AUDIT),
        words=frozenset({REASON, METADATA, *(word for e in journal["reference"] for word in e.fields["words"])}),
        readings=frozenset(_readings(facts["reading"], facts["failure"])),
        cleanings=tuple((_run(f), f["results"]) for f in facts["cleaned"]),
        faults=tuple(_faults(journal["fault"])),
        lives=tuple(_lives(journal["process-started"], journal["process-ended"])),
        not_alive=tuple(entry.fields["life"] for entry in journal["not-alive"]),
        hand_overs=tuple(_hand_over(name, line) for name, line in lines if line["message"] == HANDED_OVER),
        computations=tuple(_computation(name, line) for name, line in lines if _is_computation(line)),
        standings=tuple(_standing(entry) for entry in journal["standing"]),
        records=_records(facts["work"]),
        ways={entry.fields["life"].rpartition(".")[0]: entry.fields["way"] for entry in journal["process-started"]},
    )


def _log_lines(folder: Path) -> Iterator[tuple[str, Fields]]:
    """(process, line); what is cut off by a kill is left out."""
    for log in sorted(folder.glob("*.log")):
        for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("{") and text.endswith("}"):
                yield log.stem, json.loads(text)


def _submissions(entries: list[Entry]) -> Iterator[Submission]:
    for entry in entries:
        f = entry.fields
        if f["state"] != "intent":
            yield Submission(
                kind=Kind(f["kind"]),
                job=f["job"],
                confirmed=f["state"] == "ok",
                topic=f["topic"],
                key=_bytes(f["record_key"]),
                value=_bytes(f["value"]),
                headers=_headers(f["headers"]),
                recording=f["recording"],
                partition=f.get("partition"),
                offset=f.get("offset"),
            )


def _faults(entries: list[Entry]) -> Iterator[FaultDone]:
    begun = {e.fields["number"]: e for e in entries if e.fields["state"] == "intent"}
    for entry in entries:
        f = entry.fields
        if f["state"] != "intent":
            start = begun[f["number"]]
            target, ok = start.fields["target"], f["state"] == "ok"
            yield FaultDone(f["number"], f["kind"], target, start.time_s, entry.time_s, ok, str(f["detail"]))


def _lives(started: list[Entry], ended: list[Entry]) -> Iterator[Life]:
    ends = {entry.fields["life"]: entry for entry in ended}
    for entry in started:
        name = entry.fields["life"]
        end = ends.get(name)
        yield Life(
            name, entry.fields["roles"], entry.time_s, end.time_s if end else None, end.fields["code"] if end else None
        )


def _hand_over(life: str, line: Fields) -> HandOver:
    topic = line.get("topic", PREFIX + "job-events").removeprefix(PREFIX)
    return HandOver(life, _time_s(line), line["kind"], topic, tuple(line["partitions"]))


def _is_computation(line: Fields) -> bool:
    return line["message"] in (BEGUN, COMPUTED) or (line["message"] == STORED and not line["reused"])


def _computation(life: str, line: Fields) -> Computation:
    steps = {BEGUN: "begun", COMPUTED: "computed", STORED: "stored"}
    duration_s = line.get("duration_s", 0.0)
    step = steps[line["message"]]
    return Computation(life, _time_s(line), step, (line["job_id"], line["run"]), line["chunk_index"], duration_s)


def _standing(entry: Entry) -> Standing:
    places = {
        (topic, partition): (at, end)
        for topic, found in entry.fields["topics"].items()
        for partition, (at, end) in enumerate(found)
    }
    return Standing(entry.time_s, places)


def _records(works: list[Fields]) -> dict[Place, tuple[int, ...]]:
    found: dict[Place, list[int]] = defaultdict(list)
    for f in works:
        if f["topic"].startswith("chunk-work"):
            found[f["topic"], f["partition"]].append(f["offset"])
    return {place: tuple(sorted(offsets)) for place, offsets in found.items()}


def _attempt(f: Fields) -> Attempted:
    kind = "chunk" if "chunk" in f else f["name"].rpartition("/")[2]
    failed = f["fact"] == "failure"
    return Attempted(kind, _run(f), f["name"], f["attempt"], f["time_s"], failed, f.get("retryable", True))


def _noted(f: Fields, name: str, said: bytes) -> Noted:
    return Noted(_run(f), f["actor"], f["action"], f["target"], f["outcome"], f["happened_at"], name, said)


def _logged(line: Fields) -> Noted:
    return _noted({**line, "job": line["job_id"]}, "", json.dumps(line).encode())


def _readings(begun: list[Fields], failed: list[Fields]) -> Iterator[tuple[RunKey, int]]:
    for f in begun:
        yield _run(f), f["epoch"]
    for f in failed:
        if f["name"].endswith("/plan"):
            yield _run(f), f["attempt"]


def _run(f: Fields) -> RunKey:
    return f["job"], f["run"]


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _headers(found: list[list[str]]) -> Headers:
    return tuple((name, _bytes(value)) for name, value in found)


def _time_s(line: Fields) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
