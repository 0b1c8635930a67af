"""Read progress and results with nothing but a Kafka client, fastavro and the .avsc files.

    pip install confluent-kafka fastavro
    python read_events.py --schemas path/to/schemas --bootstrap-servers localhost:9092

One JSON object per event goes to stdout. Take it as a start for a reader of your own; docs/reading-results.md explains
each step.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema
from confluent_kafka import Consumer, KafkaException, Message

SINGLE_OBJECT = b"\xc3\x01"
"""Begins Avro single-object encoding: 8 bytes of fingerprint follow, then the body."""
CONFLUENT = b"\x00"
"""Begins Confluent's framing: 4 bytes of schema id follow, the highest first, then the body."""
POLL_S = 1.0


class Schemas:
    """The schemas that events were written with: from files by fingerprint, from a registry by id."""

    def __init__(self, folder: Path, registry_url: str | None) -> None:
        self._by_fingerprint = {fingerprint(schema): schema for schema in in_folder(folder)}
        self._by_id: dict[int, Any] = {}
        self._registry_url = registry_url

    def with_fingerprint(self, mark: bytes) -> Any:
        if mark not in self._by_fingerprint:
            raise LookupError(f"no .avsc file has the fingerprint {mark.hex()}: get the schemas of the newer service")
        return self._by_fingerprint[mark]

    def with_id(self, number: int) -> Any:
        if self._registry_url is None:
            raise LookupError(f"the event names schema {number} of a registry: say where it is with --registry")
        if number not in self._by_id:
            self._by_id[number] = from_registry(self._registry_url, number)
        return self._by_id[number]


def in_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Today's schemas, and those of earlier versions in previous/: a topic keeps events of both."""
    for path in sorted(folder.rglob("*.avsc")):
        yield json.loads(path.read_text(encoding="utf-8"))


def fingerprint(schema: dict[str, Any]) -> bytes:
    """CRC-64-AVRO of the canonical form of a schema, in the order of bytes that the wire has."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def from_registry(url: str, number: int) -> Any:
    """GET /schemas/ids/<id>, which every Confluent-compatible registry has."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/schemas/ids/{number}", timeout=10) as answer:  # noqa: S310 - ours
        return json.loads(json.loads(answer.read())["schema"])


def decode(value: bytes, schemas: Schemas) -> tuple[str, dict[str, Any]]:
    """The name of the event and its fields. The first bytes say how it is framed."""
    if value.startswith(SINGLE_OBJECT):
        schema, body = schemas.with_fingerprint(value[2:10]), value[10:]
    elif value.startswith(CONFLUENT):
        schema, body = schemas.with_id(int.from_bytes(value[1:5], "big")), value[5:]
    else:
        raise ValueError(f"neither framing; it begins with {value[:8].hex()}")
    fields: Any = fastavro.schemaless_reader(io.BytesIO(body), schema, None)
    return schema["name"].rpartition(".")[2], fields


class Newest:
    """Progress may come twice or late, because it is sent on best effort. `sequence` tells."""

    def __init__(self) -> None:
        self._sequences: dict[tuple[str, int], int] = {}

    def is_news(self, name: str, fields: dict[str, Any]) -> bool:
        if name != "JobProgress":
            return True
        run = (fields["job_id"], fields["run"])
        if fields["sequence"] <= self._sequences.get(run, 0):
            return False
        self._sequences[run] = fields["sequence"]
        return True


def records(arguments: argparse.Namespace) -> Iterator[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap_servers,
            "group.id": arguments.group,
            "auto.offset.reset": "earliest",
            # Results are written in transactions: this shows each one once, and none that was taken back.
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([f"{arguments.topic_prefix}{name}" for name in ("progress", "results")])
    try:
        while True:
            message = consumer.poll(POLL_S)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            yield message
    finally:
        consumer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the events of all jobs as JSON lines.")
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic-prefix", default="transcription.")
    parser.add_argument("--group", default="my-reader", help="your consumer group: it remembers how far you have read")
    parser.add_argument("--schemas", type=Path, required=True, help="folder with the .avsc files")
    parser.add_argument("--registry", help="URL of the schema registry, if the service uses one")
    parser.add_argument("--until", metavar="JOB", help="end when this job has ended")
    arguments = parser.parse_args()
    schemas, newest = Schemas(arguments.schemas, arguments.registry), Newest()
    for message in records(arguments):
        try:
            name, fields = decode(message.value() or b"", schemas)
        except (LookupError, ValueError, EOFError) as exc:
            where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
            sys.stderr.write(f"skipped {where}: {exc}\n")
            continue
        if newest.is_news(name, fields):
            sys.stdout.write(json.dumps({"event": name, **fields}, default=str) + "\n")
            sys.stdout.flush()
        if name == "JobFinished" and fields["job_id"] == arguments.until:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
