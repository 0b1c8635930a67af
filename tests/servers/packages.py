"""The servers and tools that the tests run as plain processes, and how each is obtained: package managers only.

Each goes into its own folder of the cache, `NAME-VERSION`. It is made beside its place and renamed into it, so that a
folder under its final name is always whole, and a second run finds it and does nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import schemas, versions

CACHE_VARIABLE = "WHISPERX_TEST_CACHE"


class InstallError(RuntimeError):
    """Something that the installation needs is missing, or a step of it failed."""


@dataclass(frozen=True)
class Package:
    """One thing to obtain: `make` fills an empty folder, `proof` is a file in it that the tests open."""

    name: str
    version: str
    proof: str
    needs: tuple[str, ...]
    make: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        return cache_folder() / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        return self.folder / self.proof

    def is_installed(self) -> bool:
        return self.path.exists()

    def install(self) -> None:
        """Obtain it unless it is there. Raises InstallError."""
        if self.is_installed():
            return
        require_programs(self.name, self.needs)
        cache_folder().mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=cache_folder()))
        try:
            self.make(unfinished)
            unfinished.chmod(0o755)  # mkdtemp keeps its folders private; a cache may be shared
            self._move_into_place(unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _move_into_place(self, finished: Path) -> None:
        try:
            finished.rename(self.folder)
        except OSError:
            # Another run was faster, and a folder under its final name is whole.
            if not self.is_installed():
                raise


def cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "whisperx-consumer-tests"


def require_programs(name: str, needs: Sequence[str]) -> None:
    missing = [program for program in needs if shutil.which(program) is None]
    if missing:
        raise InstallError(f"{name} needs {' and '.join(missing)} on the PATH; install it, or leave {name} out")


def run(command: Sequence[str], **environment: str) -> None:
    """Run one step. What it prints goes to our standard error; only on failure does it become a message."""
    result = subprocess.run(command, stdout=sys.stderr, env={**os.environ, **environment}, check=False)
    if result.returncode:
        raise InstallError(f"failed with status {result.returncode}: {' '.join(command)}")


def _maven(*arguments: str) -> None:
    goal, *rest = arguments
    plugin = f"org.apache.maven.plugins:maven-dependency-plugin:{versions.MAVEN_DEPENDENCY_PLUGIN}:{goal}"
    run(["mvn", "-q", "-B", plugin, *rest])


def _go(module: str, version: str, folder: Path) -> None:
    run(["go", "install", "-ldflags", "-s -w", f"{module}@{version}"], GOBIN=str(folder), GOFLAGS="")


KAFKA_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>kafka-classpath</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{versions.KAFKA_SCALA}</artifactId><version>{versions.KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId><version>{versions.LOG4J}</version>
    </dependency>
  </dependencies>
</project>
"""


def _make_kafka(folder: Path) -> None:
    pom = folder / "pom.xml"
    pom.write_text(KAFKA_POM)
    libraries = f"-DoutputDirectory={folder / 'libs'}"
    _maven("copy-dependencies", "-f", str(pom), libraries, "-DincludeScope=runtime")


def _make_minio(folder: Path) -> None:
    _go("github.com/minio/minio", versions.MINIO, folder)


def _make_registry(folder: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{versions.APICURIO}:tar.gz:all"
    _maven("copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    archive = folder / f"apicurio-registry-app-{versions.APICURIO}-all.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()


def _make_helm(folder: Path) -> None:
    _go("helm.sh/helm/v3/cmd/helm", versions.HELM, folder)


def _make_kubeconform(folder: Path) -> None:
    schemas.copy_readable(folder / "schemas")
    _go("github.com/yannh/kubeconform/cmd/kubeconform", versions.KUBECONFORM, folder)


def _make_toxiproxy(folder: Path) -> None:
    _go("github.com/Shopify/toxiproxy/v2/cmd/server", versions.TOXIPROXY, folder)


KAFKA = Package(
    "kafka",
    versions.KAFKA,
    f"libs/kafka_{versions.KAFKA_SCALA}-{versions.KAFKA}.jar",
    ("java", "mvn"),
    _make_kafka,
)
MINIO = Package("minio", versions.MINIO, "minio", ("go",), _make_minio)
REGISTRY = Package(
    "registry",
    versions.APICURIO,
    f"apicurio-registry-app-{versions.APICURIO}-runner.jar",
    ("java", "mvn"),
    _make_registry,
)
HELM = Package("helm", versions.HELM, "helm", ("go",), _make_helm)
KUBECONFORM = Package(
    "kubeconform", f"{versions.KUBECONFORM}-{schemas.version()}", "kubeconform", ("go",), _make_kubeconform
)
TOXIPROXY = Package("toxiproxy", versions.TOXIPROXY, "server", ("go",), _make_toxiproxy)
PACKAGES = {package.name: package for package in (KAFKA, MINIO, REGISTRY, HELM, KUBECONFORM, TOXIPROXY)}


def install_kcat() -> None:
    """kcat comes from the system: there is no package of it for any language. Raises InstallError."""
    if shutil.which("kcat"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InstallError("kcat must come from the system's package manager, for example: apt-get install kcat")
    run(["apt-get", "update", "-q"])
    run(
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "kcat"],
        DEBIAN_FRONTEND="noninteractive",
    )
