"""The command line of the service: run, transcribe, doctor, config, topics, buckets, policy, sweep.

Data on stdout, talk on stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from consumer import access, buckets, doctor, logs, sentry, settings_reference, store_policies, topics
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.object_store import S3Store
from consumer.adapters.s3_buckets import S3Buckets
from consumer.adapters.store_clock import clock_skew_s
from consumer.bootstrap import NEED_SPEECH, Parts, Role, System, serving
from consumer.doctor import Check
from consumer.entry import ADD_ACLS, lacking, require_entry
from consumer.errors import InvalidOption, Misconfigured, WhisperXError
from consumer.events import JobOptions, OutputFormat
from consumer.exit_codes import ExitCode, exit_code_of
from consumer.findings import Finding, fail, failed, ok, report
from consumer.hard_end import end_now
from consumer.settings import ChunkSettings, LimitSettings, Settings
from consumer.sweeping import add_sweep
from consumer.version import version

log = logging.getLogger(__name__)

EPILOG = """\
Settings come from the environment (WHISPERX_KAFKA__BOOTSTRAP_SERVERS and so on): see docs/settings.md.
Exit codes: 0 ok, 1 a job or a check failed, 2 usage, 70 bug, 75 a server is away, 76 broken worker,
78 settings cannot work, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        arguments = parser().parse_args(argv)
        act: Callable[[argparse.Namespace], int] = arguments.act
        return act(arguments)
    except ValidationError as error:
        return _say(ExitCode.MISCONFIGURED, _settings_faults(error))
    except WhisperXError as error:
        return _say(exit_code_of(error), f"{error.code}: {error.message}")
    except KeyboardInterrupt:
        return _say(ExitCode.INTERRUPTED, "interrupted")


def parser() -> argparse.ArgumentParser:
    """The whole command line, also for the docs."""
    root = argparse.ArgumentParser(
        prog="whisperx-consumer",
        description="Event-driven transcription: job events on Kafka, recordings in MinIO, WhisperX on GPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="serve one or more roles until SIGTERM"))
    _add_transcribe(commands.add_parser("transcribe", help="transcribe files here, with everything embedded"))
    _add_doctor(commands.add_parser("doctor", help="check brokers, topics, buckets, models and device"))
    _add_config(commands.add_parser("config", help="show the effective settings, secrets masked"))
    _add_topics(commands.add_parser("topics", help="create the topics, and show who needs which rights on them"))
    _add_buckets(commands.add_parser("buckets", help="make the buckets, with their lifecycle rules"))
    _add_policy(commands.add_parser("policy", help="print a least-privilege policy for the store"))
    add_sweep(commands.add_parser("sweep", help="find and remove what no job needs any more"))
    return root


def _say(code: ExitCode, sentence: str) -> int:
    print(f"whisperx-consumer: {sentence}", file=sys.stderr)
    return int(code)


def _settings_faults(error: ValidationError) -> str:
    lines = settings_reference.faults(error)
    return "the settings cannot be read:\n  " + "\n  ".join(lines) + "\nsee docs/settings.md"


def _started_settings() -> Settings:
    settings = Settings()
    secrets = settings_reference.secrets(settings)
    logs.configure(settings.log, secrets)
    logs.log_uncaught()
    sentry.start(settings.sentry, version(), secrets)
    return settings


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _add_run(command: argparse.ArgumentParser) -> None:
    names = ", ".join(role.value for role in Role)
    command.add_argument(
        "--roles", required=True, type=_roles, help=f"comma-separated: {names}, or all", metavar="ROLE[,ROLE…]"
    )
    command.set_defaults(act=_run)


def _roles(text: str) -> tuple[Role, ...]:
    if text == "all":
        return tuple(Role)
    try:
        return tuple(Role(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; choose from {', '.join(role.value for role in Role)}") from error


def _run(arguments: argparse.Namespace) -> int:
    """Serve until a signal or a failure. Ends hard, so that work left behind cannot hold the process."""
    settings = _started_settings()
    try:
        require_entry(settings, arguments.roles)
        code = _serve(System(Parts(settings), arguments.roles))
    except WhisperXError as error:
        log.error("Ended by an error", extra={"code": error.code, "reason": error.message})
        code = exit_code_of(error)
    except Exception as error:
        log.critical("Ended by a bug", exc_info=error)
        code = ExitCode.BUG
    logging.shutdown()
    sys.stderr.flush()
    end_now(code)


def _serve(system: System) -> ExitCode:
    def stop(*_: object) -> None:
        system.stop()
        if system.is_starting:  # later on, the loops say that they drain
            log.info("Told to stop; ends as soon as the models are loaded")

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    with serving(system):
        system.start()
        system.wait()
    log.info("Stopped in good order")
    return ExitCode.OK


# ── transcribe ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _add_transcribe(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Run the whole system for these files in this process: the same functions, coordinator and loop as in a "
        "cluster, on an embedded broker and an embedded store. Nothing is durable."
    )
    command.add_argument("files", nargs="+", type=_recording, metavar="FILE", help="recordings: WAV, MP3, M4A, FLAC, …")
    command.add_argument("--model-dir", type=Path, metavar="DIR", help="model directory (default: the demo models)")
    command.add_argument("--output-dir", type=Path, metavar="DIR", default=Path("demo-output"), help="for the results")
    command.add_argument(
        "--chunk-length", type=_chunk_length, metavar="SECONDS", help="length of a chunk (default: 300)"
    )
    command.add_argument("--language", default="auto", metavar="CODE", help="ISO 639 code, or auto (default)")
    command.add_argument("--speakers", type=int, metavar="N", help="number of speakers (default: found by itself)")
    command.add_argument("--vad-policy", choices=("silero", "whisperx"), help="window policy (default: silero)")
    command.add_argument(
        "--formats", default=",".join(OutputFormat), metavar="LIST", help="comma-separated (default: all)"
    )
    command.add_argument("--verbose", action="store_true", help="show the log lines of the service")
    command.set_defaults(act=_transcribe)


def _recording(text: str) -> Path:
    path = Path(text)
    if not os.path.isfile(path):  # says no as well of a name that is too long, where Path raises
        raise argparse.ArgumentTypeError(f"{text} is not a file; give the path of a recording")
    return path


def _chunk_length(text: str) -> float:
    try:
        return ChunkSettings(length_s=float(text)).length_s
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a length of 10 seconds or more") from error


def _transcribe(arguments: argparse.Namespace) -> int:
    try:
        from demo import transcribe
    except ImportError as error:
        raise Misconfigured(f"{error}; install the extra: pip install 'whisperx-consumer[speech,demo]'") from error
    return transcribe.main(arguments)


# ── doctor, config, topics ──────────────────────────────────────────────────────────────────────────────────────────


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="findings as JSON on stdout")
    command.add_argument("--roles", type=_roles, default=tuple(Role), help="what this machine is to run (default: all)")
    command.set_defaults(act=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    logging.getLogger("consumer").addHandler(logging.NullHandler())  # what our parts would log, the findings say
    settings = Settings()
    parts = Parts(settings)
    probes: list[tuple[str, doctor.Probe]] = []
    if settings.registry.url:
        probes.append(("registry", lambda: _registry(parts)))
    if NEED_SPEECH & set(arguments.roles):
        probes.append(("models", lambda: _models(settings)))
        probes.append(("device", lambda: _device(settings)))
    checks = doctor.installation_checks(
        settings,
        admin=KafkaAdmin(settings.kafka),
        store=parts.store,
        probe_id=uuid.uuid4().hex,
        bucket_admin=S3Buckets(S3Store.of(settings.store)),
        clock_skew_s=lambda: clock_skew_s(settings.store),
        probes=probes,
    )
    checks.append(Check("rights", lambda: _rights(settings, arguments.roles), "kafka"))
    findings = doctor.run(checks)
    print(json.dumps([finding.as_dict() for finding in findings], indent=2) if arguments.json else report(findings))
    return ExitCode.FAILED if failed(findings) else ExitCode.OK


def _rights(settings: Settings, roles: Sequence[Role]) -> list[Finding]:
    missing = lacking(KafkaAdmin(settings.kafka), settings, roles)
    if missing:
        return [fail("rights", f"not allowed: {', '.join(missing)}", ADD_ACLS)]
    return [ok("rights", f"the brokers allow on topics what {', '.join(roles)} need")]


def _registry(parts: Parts) -> str:
    assert parts.codec is not None
    return f"{parts.settings.registry.url} answers and knows our schemas"


def _models(settings: Settings) -> str:
    """Every model on the allow-list is here, with all its parts. Raises MissingModel."""
    from consumer.speech.engine import SpeechEngine

    engine = SpeechEngine(settings.models, settings.device)
    found = [engine.models_used(JobOptions(model=name), "en") for name in settings.models.allowed]
    return "; ".join(", ".join(f"{model.role} {model.name}" for model in models) for models in found)


def _device(settings: Settings) -> str:
    """What would be computed on. Raises Misconfigured when the settings ask for what is not there."""
    from consumer.speech.device import choose_device, cuda_fault

    device = choose_device(settings.device)
    why_not = f", because {cuda_fault()}" if device.kind == "cpu" and settings.device.device == "auto" else ""
    return f"{device} with {device.threads} threads, batches of {device.batch_size}{why_not}"


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(act=_config)


def _config(arguments: argparse.Namespace) -> int:
    settings = Settings()
    as_json = json.dumps(settings_reference.effective(settings), indent=2, default=str) if arguments.json else None
    print(as_json or settings_reference.effective_text(settings))
    return ExitCode.OK


def _add_topics(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create the topics that are missing; never changes one that exists")
    create.add_argument("--dry-run", action="store_true", help="only say what would be created")
    create.set_defaults(act=_topics_create)
    acls = actions.add_parser("acls", help="print the least rights that roles and clients need on the brokers")
    acls.description = (
        "Lines for kafka-acls.sh: one principal, User:whisperx-NAME, for each role and each kind of client "
        f"({', '.join(access.NAMES)})."
    )
    acls.add_argument("--for", dest="names", type=_holders, metavar="NAME[,NAME…]", help="only for these")
    acls.add_argument(
        "--principal", metavar="User:NAME", help="one principal for all of --for, such as a pod with several roles"
    )
    acls.add_argument("--apply", action="store_true", help="add them to the brokers, and print what was added")
    acls.set_defaults(act=_topics_acls)


def _holders(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in access.NAMES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(access.NAMES)}")
    return names


def _topics_acls(arguments: argparse.Namespace) -> int:
    """Each name has its own principal, or all that are asked for have one together."""
    settings, names = Settings(), arguments.names or access.NAMES
    if arguments.principal and not arguments.names:
        raise InvalidOption("--principal is one for the names of --for; say which")
    holders = (
        {arguments.principal: names} if arguments.principal else {f"User:whisperx-{name}": (name,) for name in names}
    )
    for principal, held in holders.items():
        acls = access.acls(held, settings.kafka)
        if arguments.apply:
            KafkaAdmin(settings.kafka).allow(principal, acls)
        for acl in acls:
            print(access.kafka_acls_line(acl, principal, settings.kafka.bootstrap_servers))
    return ExitCode.OK


def _topics_create(arguments: argparse.Namespace) -> int:
    settings = Settings()
    specs = topics.table(settings.kafka.topic_prefix, settings.topics)
    creation = topics.create(KafkaAdmin(settings.kafka), specs, dry_run=arguments.dry_run)
    for name in creation.created:
        print(name)
    if not creation.created:
        print("all topics exist", file=sys.stderr)
    if creation.findings:
        print(report(creation.findings), file=sys.stderr)
    return ExitCode.FAILED if failed(creation.findings) else ExitCode.OK


# ── buckets, policy ─────────────────────────────────────────────────────────────────────────────────────────────────


def _add_buckets(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser(
        "create", help="make the buckets that are missing and set our lifecycle rules; rules of others are kept"
    )
    create.add_argument("--dry-run", action="store_true", help="only say what would be done")
    create.add_argument(
        "--recordings", action="append", default=[], metavar="BUCKET", help="also make this one, for senders; no rule"
    )
    create.set_defaults(act=_buckets_create)


def _buckets_create(arguments: argparse.Namespace) -> int:
    store = Settings().store
    admin = S3Buckets(S3Store.of(store))
    done = buckets.create(admin, buckets.table(store), recordings=arguments.recordings, dry_run=arguments.dry_run)
    for line in done:
        print(line)
    if not done:
        print("all buckets and rules are as they should be", file=sys.stderr)
    return ExitCode.OK


def _add_policy(command: argparse.ArgumentParser) -> None:
    whose = "; ".join(f"{who}: who {meaning}" for who, meaning in store_policies.MEANINGS.items())
    command.description = (
        f"Print the rights at the store that one kind of user needs, as JSON for MinIO or S3. {whose}."
    )
    command.add_argument("who", choices=[str(who) for who in store_policies.Principal], help="the kind of user")
    command.add_argument(
        "--senders",
        nargs="+",
        type=_senders_place,
        metavar="BUCKET[/PREFIX/]",
        help="where recordings are (default: WHISPERX_LIMITS__ALLOWED_BUCKETS)",
    )
    command.add_argument(
        "--delete-recordings",
        action="store_true",
        help="service, cleanup: also where jobs may have their recording deleted",
    )
    command.set_defaults(act=_policy)


def _senders_place(text: str) -> str:
    """As the setting takes it: without the slash a policy for team-a would reach the recordings of team-abc."""
    try:
        return LimitSettings(allowed_buckets=(text,)).allowed_buckets[0]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no bucket, and no part of one with a slash at the end") from error


def _policy(arguments: argparse.Namespace) -> int:
    settings, who = Settings(), store_policies.Principal(arguments.who)
    senders = arguments.senders or settings.limits.allowed_buckets
    deletes = arguments.delete_recordings
    if not senders and store_policies.is_about_recordings(who, delete_recordings=deletes):
        raise Misconfigured("it is not known where recordings are; name the buckets with --senders")
    document = store_policies.policy(who, settings.store, senders, delete_recordings=deletes)
    print(store_policies.as_text(document), end="")
    return ExitCode.OK
