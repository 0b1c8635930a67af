"""Obtain the servers and tools that the tests run as plain processes.

    python -m tests.servers.install                 # all of them
    python -m tests.servers.install kafka minio     # some of them

Prints where each one is. Ends with status 1 when one could not be obtained.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence

from tests.servers.packages import PACKAGES, InstallError, install_kcat

INSTALLERS: dict[str, Callable[[], None]] = {
    **{name: package.install for name, package in PACKAGES.items()},
    "kcat": install_kcat,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.install", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(INSTALLERS)} (all when none)")
    names = parser.parse_args(arguments).names
    unknown = [name for name in names if name not in INSTALLERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(INSTALLERS)}")
    results = [_install(name) for name in names or INSTALLERS]
    return 0 if all(results) else 1


def _install(name: str) -> bool:
    print(f"{name}: installing unless it is there", file=sys.stderr, flush=True)
    try:
        INSTALLERS[name]()
    except InstallError as problem:
        print(f"{name}: {problem}", file=sys.stderr)
        return False
    place = PACKAGES[name].path if name in PACKAGES else shutil.which(name)
    print(f"{name}: {place}")
    return True


if __name__ == "__main__":
    sys.exit(main())
