"""The image as it is written down: what is let into it, who it runs as, and that it fits the chart.

It is too large to be built in each test run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.settings import ServerSettings

ROOT = Path(__file__).parents[3]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
SHIPPED = STAGES[-1]
POD = (ROOT / "helm" / "whisperx-consumer" / "templates" / "_pod.tpl").read_text(encoding="utf-8")
CACHE = "/var/cache/whisperx"


def test_the_build_sees_only_what_it_copies() -> None:
    """A key or a recording that lies about in a checkout gets into no layer."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "all is kept out first"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {name for names in copied for name in names.split()}


def test_it_runs_as_the_user_of_the_chart_who_owns_one_folder_alone() -> None:
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", SHIPPED, re.MULTILINE)[-1]
    for field, number in (("runAsUser", user), ("runAsGroup", group), ("fsGroup", group)):
        assert f"{field}: {number}\n" in POD
    assert re.findall(r"-o (\d+) -g (\d+) -m 0750 (\S+)", SHIPPED) == [(user, group, CACHE)]
    assert "--chown" not in SHIPPED
    assert "chmod" not in SHIPPED
    assert SHIPPED.index("\nUSER ") > max(SHIPPED.rindex("\nCOPY "), SHIPPED.rindex("\nRUN "))


def test_all_that_libraries_write_goes_where_the_chart_mounts_a_folder() -> None:
    variables = dict(re.findall(r"(\w+)=(/\S+)", SHIPPED[SHIPPED.index("ENV ") : SHIPPED.index("ARG VERSION")]))
    places = {name: place for name, place in variables.items() if name not in ("PATH", "PYTHONPATH")}
    assert {"HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "NUMBA_CACHE_DIR"} <= places.keys()
    assert {name for name, place in places.items() if Path(CACHE) not in (Path(place), *Path(place).parents)} == set()
    assert f"{{name: cache, mountPath: {CACHE}}}" in POD


def test_it_says_where_it_answers() -> None:
    assert re.findall(r"^EXPOSE (\d+)$", SHIPPED, re.MULTILINE) == [str(ServerSettings().port)]


def test_nothing_is_installed_but_what_is_locked_with_its_digest() -> None:
    assert "uv export --frozen" in DOCKERFILE
    assert re.findall(r"uv pip sync .*", DOCKERFILE) == [
        "uv pip sync --python /opt/whisperx/bin/python --require-hashes /requirements.txt"
    ]
    assert all("--no-deps" in line for line in re.findall(r"uv pip install .*", DOCKERFILE))


@pytest.mark.parametrize("lacks", ["", "landlockpy", "pyseccomp"])
def test_an_image_with_decoders_is_not_made_without_what_closes_them(lacks: str) -> None:
    """The libraries may be there and of no use: pyseccomp asks for one of the system's."""
    (program,) = re.findall(r"^RUN if \[ -d \S+/av \]; then python -c '(.+)'; fi$", SHIPPED, re.MULTILINE)
    before = f"import sys; sys.path.append({str(ROOT)!r}); sys.modules[{lacks!r}] = None; "
    done = subprocess.run([sys.executable, "-I", "-c", before + program], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is not bool(lacks), done.stderr
