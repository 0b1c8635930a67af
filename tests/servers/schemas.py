"""Kubernetes' own schemas, made readable for kubeconform without a network.

They come with the `kubernetes-validate` package. As shipped, their `$id` is a web address and their `$ref` is a
path from that address's root; kubeconform follows neither and reports "could not find schema".
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path

PACKAGE = "kubernetes-validate"


def version() -> str:
    return importlib.metadata.version(PACKAGE)


def copy_readable(target: Path) -> None:
    """Write every strict schema to target/VERSION/KIND.json, with references that are names of its neighbours."""
    for source in sorted(_shipped().glob("v*-local-strict")):
        folder = target / source.name.removesuffix("-local-strict").removeprefix("v")
        folder.mkdir(parents=True)
        for schema in source.glob("*.json"):
            (folder / schema.name).write_text(_readable(schema.read_text()))


def _readable(text: str) -> str:
    schema = json.loads(text)
    schema.pop("$id", None)
    return json.dumps(schema, separators=(",", ":")).replace('"/api/_definitions.json#', '"_definitions.json#')


def _shipped() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the {PACKAGE} package holds the schemas; install the dev dependencies")
    return Path(spec.origin).parent / "kubernetes-json-schema"
