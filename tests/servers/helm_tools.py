"""Helm and kubeconform: what a chart renders to, and whether Kubernetes would accept the form of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.control import unavailable
from tests.servers.packages import HELM, KUBECONFORM

TIMEOUT_S = 60
KUBERNETES = "1.37.0"
"""The newest version whose schemas kubernetes-validate brings; the oldest is 1.25.0."""


class RenderError(AssertionError):
    """Helm refused the chart or its values. The message is Helm's."""


@dataclass(frozen=True)
class Problem:
    """One object that kubeconform refused."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Conformity:
    """What kubeconform says of a manifest."""

    valid: int
    skipped: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Helm:
    """Helm 3, used without a cluster."""

    binary: Path

    def template(self, chart: Path, *arguments: str, release: str = "test") -> str:
        """The manifest a chart renders to. Raises RenderError."""
        return self._run("template", release, str(chart), *arguments)

    def lint(self, chart: Path, *arguments: str) -> str:
        """Helm's remarks on a chart. Raises RenderError when one is an error."""
        return self._run("lint", "--strict", str(chart), *arguments)

    def _run(self, *arguments: str) -> str:
        command = [str(self.binary), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if result.returncode:
            raise RenderError(f"{' '.join(arguments)}\n{result.stdout}{result.stderr}")
        return result.stdout


@dataclass(frozen=True)
class Kubeconform:
    """Checks manifests against Kubernetes' own schemas, without a network."""

    binary: Path
    schemas: Path

    def check(
        self,
        manifest: str,
        kubernetes: str = KUBERNETES,
        skip_kinds: Sequence[str] = (),
        schema_locations: Sequence[str] = (),
    ) -> Conformity:
        """Hold every object against its schema, strictly: an unknown field is a problem.

        `schema_locations` are kubeconform's templates for kinds that Kubernetes does not define itself.
        """
        ours = f"{self.schemas}/{kubernetes}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        command = [
            str(self.binary),
            "-strict",
            "-summary",
            "-output",
            "json",
            "-kubernetes-version",
            kubernetes,
        ]
        for location in (ours, *schema_locations):
            command += ["-schema-location", location]
        if skip_kinds:
            command += ["-skip", ",".join(skip_kinds)]
        result = subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if not result.stdout:
            raise RuntimeError(f"kubeconform failed: {result.stderr}")
        return _conformity(result.stdout)


def _conformity(output: str) -> Conformity:
    report = json.loads(output)
    problems = tuple(Problem(found["kind"], found["name"], found["msg"]) for found in report["resources"])
    return Conformity(report["summary"]["valid"], report["summary"]["skipped"], problems)


def installed_helm() -> Helm:
    if not HELM.is_installed():
        unavailable("no helm: run python -m tests.servers.install helm")
    return Helm(HELM.path)


def installed_kubeconform() -> Kubeconform:
    if not KUBECONFORM.is_installed():
        unavailable("no kubeconform: run python -m tests.servers.install kubeconform")
    return Kubeconform(KUBECONFORM.path, KUBECONFORM.folder / "schemas")
