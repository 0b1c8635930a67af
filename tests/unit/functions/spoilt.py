"""Documents of the object store as no function of this version has written them."""

from __future__ import annotations

import json

from pydantic import BaseModel

NO_DOCUMENTS = (b"", bytes(64), b"{", b"[" * 100_000, b'"\xff"', b"null", b"[]", b"{}")


def spoilt(document: BaseModel, **lies: object) -> list[bytes]:
    """What is no document at all; this one of another version; and with each of the lies."""
    whole = document.model_dump(mode="json")
    return [*NO_DOCUMENTS, *(_json({**whole, name: lie}) for name, lie in {"version": 2, **lies}.items())]


def with_more(data: bytes) -> bytes:
    """The document with a field that this version does not know, also in the values that it holds."""
    return _json(_with_more(json.loads(data)))


def _with_more(value: object) -> object:
    match value:
        case dict():
            return {**{name: _with_more(one) for name, one in value.items()}, "of_a_later_version": [1]}
        case list():
            return [_with_more(one) for one in value]
        case _:
            return value


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
