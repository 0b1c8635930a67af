"""JSON documents in the object store: one function writes them, and another one reads them, perhaps of another version.

What a later version has added is skipped, also inside of values that refuse it in an event: there a sender's mistake
would go unnoticed, and here nobody but ourselves has written.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from consumer.errors import UnreadableDocument

D = TypeVar("D", bound=BaseModel)


def parse(document: type[D], data: bytes, place: str) -> D:
    """Raises UnreadableDocument."""
    try:
        return document.model_validate_json(data, extra="ignore")
    except ValidationError as exc:
        fault = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole"
        raise UnreadableDocument(
            f"{place} is not a {document.__name__} that this version reads ({where}: {fault['msg']}); keep others "
            "out of our buckets, run one version, and retry the job",
            place=place,
            faults=exc.error_count(),
        ) from exc
