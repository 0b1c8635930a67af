from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from consumer import access, cli
from consumer.bootstrap import Role
from consumer.core.layout import Topic
from consumer.exit_codes import ExitCode
from consumer.settings import KafkaSettings

PAGE = Path(__file__).parents[3] / "docs" / "kafka.md"
CODE = re.compile(r"`([^`]+)`")
KAFKA = KafkaSettings(topic_prefix="t.", group_prefix="g.")


def test_every_role_has_its_rights() -> None:
    assert list(access.ROLES) == [role.value for role in Role]


def test_every_topic_is_written_by_somebody_and_read_by_somebody_but_audit() -> None:
    everybody = [*access.ROLES.values(), *access.CLIENTS.values()]
    assert {topic for rights in everybody for topic in rights.writes} == set(Topic)
    read = {topic for rights in everybody for topic in (*rights.reads, *rights.follows)}
    assert set(Topic) - read == {Topic.AUDIT}, "who reads the audit is for those to say who keep it"


def test_the_rights_of_several_are_joined_and_each_resource_is_there_once() -> None:
    joined = access.acls(["plan", "assemble"], KAFKA)
    assert len({(acl.kind, acl.name, acl.pattern) for acl in joined}) == len(joined)
    for name in ("plan", "assemble"):
        assert {(acl.kind, acl.name) for acl in access.acls([name], KAFKA)} <= {(a.kind, a.name) for a in joined}
    (control,) = [acl for acl in joined if acl.name == "t.control"]
    assert control.operations == ("Read",)


def test_the_names_of_one_role_never_begin_those_of_another() -> None:
    """Else the rule for the first one's producers would hold for those of the second."""
    prefixes = [acl.name for name in access.NAMES for acl in access.acls([name], KAFKA) if acl.pattern == "prefixed"]
    prefixes = [prefix for prefix in prefixes if prefix.startswith("g.")]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)]


def test_without_a_prefix_the_operator_is_allowed_all_topics_by_a_literal_star() -> None:
    found = access.acls(["operator"], KafkaSettings(topic_prefix=""))
    assert access.Acl("topic", "*", ("Create", "Describe", "DescribeConfigs")) in found


def test_the_page_says_of_everybody_what_is_in_the_table() -> None:
    """Work is said in words there: each worker's own, or all."""
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    shown = {name: (cells[1], cells[2]) for cells in rows for name in CODE.findall(cells[0]) if name in access.NAMES}
    assert shown.keys() == set(access.NAMES)
    for name, (reads, writes) in shown.items():
        rights = access.ROLES.get(name) or access.CLIENTS[name]
        assert set(CODE.findall(reads)) == {*rights.reads, *rights.follows} - set(access.WORK), name
        assert set(CODE.findall(writes)) == set(rights.writes) - set(access.WORK), name
        assert ("all work" in writes) == (set(access.WORK) <= set(rights.writes)), name


def test_the_command_prints_lines_for_the_tool_of_kafka(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHISPERX_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092")
    assert cli.main(["topics", "acls", "--for", "transcribe"]) == ExitCode.OK
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    begin = [
        "kafka-acls.sh",
        "--bootstrap-server",
        "kafka:9092",
        "--add",
        "--allow-principal",
        "User:whisperx-transcribe",
    ]
    assert all(line[: len(begin)] == begin for line in lines)
    assert [" ".join(line[len(begin) :]) for line in lines] == [
        "--operation Read --topic transcription.chunk-work.high",
        "--operation Read --topic transcription.chunk-work.normal",
        "--operation Read --topic transcription.chunk-work.low",
        "--operation Read --topic transcription.control",
        "--operation Write --topic transcription.job-events",
        "--operation Write --topic transcription.dead-letters",
        "--operation Write --topic transcription.audit",
        "--operation Read --group whisperx-consumer.transcribe.chunk-work.high",
        "--operation Read --group whisperx-consumer.transcribe.chunk-work.normal",
        "--operation Read --group whisperx-consumer.transcribe.chunk-work.low",
        "--operation Write --transactional-id whisperx-consumer.transcribe. --resource-pattern-type prefixed",
    ]


def test_one_principal_can_hold_several_roles(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["topics", "acls", "--for", "plan,cleanup", "--principal", "User:CN=cpu pods"]) == ExitCode.OK
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert {line[line.index("--allow-principal") + 1] for line in lines} == {"User:CN=cpu pods"}
    assert len([line for line in lines if "transcription.job-events" in line]) == 1


def test_a_principal_needs_to_know_what_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["topics", "acls", "--principal", "User:a"]) == ExitCode.USAGE
    assert "--for" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["topics", "acls", "--for", "nobody"])
