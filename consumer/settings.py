"""The only reader of the environment: typed settings, read once, passed down.

Names follow the nesting: `WHISPERX_KAFKA__BOOTSTRAP_SERVERS` is `settings.kafka.bootstrap_servers`. The reference in
docs/settings.md is generated from this file.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from consumer.settings_source import Environment

MIB = 1 << 20
GIB = 1 << 30


class Group(BaseModel):
    """A group of settings; the line under each field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class KafkaSettings(Group):
    bootstrap_servers: str = "localhost:9092"
    """Brokers to start from, host:port with commas between."""
    topic_prefix: str = "transcription."
    """Put before every topic name."""
    group_prefix: str = "whisperx-consumer."
    """Put before every consumer group and transactional id."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """classic (cooperative-sticky, every broker) or consumer (KIP-848, brokers from 4.0)."""
    session_timeout_s: float = Field(8.0, ge=1)
    """A worker that is silent this long loses its partitions, in seconds (classic protocol). A broker that comes back
    waits as long for the members that it remembers, before work goes on."""
    max_poll_interval_s: float = Field(120.0, ge=5)
    """A loop that does not poll this long is taken for stuck, in seconds; the loop polls also while busy."""
    transaction_timeout_s: float = Field(20.0, ge=1)
    """Life of an open transaction in seconds; one is opened only to publish finished work."""
    commit_timeout_s: float = Field(10.0, ge=1)
    """Longest wait for the end of a transaction in seconds; after it the producer is thrown away."""
    transactions: bool = True
    """Publish results and offsets together. Only the embedded demo broker, which cannot, turns this off."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = ""
    """How to log in; empty: no login."""
    sasl_username: str = ""
    """Name to log in with (PLAIN and SCRAM)."""
    sasl_password: SecretStr = SecretStr("")
    """Password to log in with (PLAIN and SCRAM)."""
    oauth_token_endpoint: str = ""
    """URL that gives tokens for a client id and its secret (OAUTHBEARER, OIDC's client credentials)."""
    oauth_client_id: str = ""
    """Client id to get tokens with."""
    oauth_client_secret: SecretStr = SecretStr("")
    """Its secret."""
    oauth_scope: str = ""
    """Scope to ask for, words with spaces between; empty: the issuer's own choice."""
    oauth_ca_location: str = ""
    """File with the certificates to trust at the token endpoint; empty: the system's."""
    ssl_ca_location: str = ""
    """File with the certificates to trust; empty: the system's."""
    ssl_certificate_location: str = ""
    """PEM file with our own certificate and its chain, for brokers that ask for one (mTLS); empty: none."""
    ssl_key_location: str = ""
    """PEM file with the key of that certificate."""
    ssl_key_password: SecretStr = SecretStr("")
    """Password of the key file; empty: it has none."""
    ssl_verify_hostname: bool = True
    """Refuse a broker whose certificate is for another host. Off only to find out what is wrong."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Further librdkafka properties as JSON, for the rare case; they win over ours."""

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        """A combination that cannot be meant is refused at start, and not by the brokers later."""
        for wrong, sentence in self._contradictions():
            if wrong:
                raise ValueError(sentence)
        return self

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        """What `extra` says in our place is taken for right."""
        mechanism = self.sasl_mechanism
        by_password = mechanism not in ("", "OAUTHBEARER")
        by_token = mechanism == "OAUTHBEARER"
        own_login = any(name.startswith("sasl.") for name in self.extra)
        oauth = (self.oauth_token_endpoint, self.oauth_client_id, self.oauth_client_secret.get_secret_value())
        sasl, tls = self.security_protocol.startswith("SASL_"), self.security_protocol.endswith("SSL")
        certificate, key = self.ssl_certificate_location, self.ssl_key_location
        return (
            (
                bool(mechanism) and not sasl,
                f"sasl_mechanism={mechanism} logs nobody in without security_protocol=SASL_SSL",
            ),
            (
                sasl and not mechanism and not own_login,
                f"security_protocol={self.security_protocol} needs a sasl_mechanism",
            ),
            (
                by_password and not own_login and not (self.sasl_username and self.sasl_password.get_secret_value()),
                f"sasl_mechanism={mechanism} needs sasl_username and sasl_password",
            ),
            (
                by_token and not own_login and not all(oauth),
                "sasl_mechanism=OAUTHBEARER needs oauth_token_endpoint, oauth_client_id and oauth_client_secret",
            ),
            (
                any(oauth) and not by_token,
                "oauth_token_endpoint, oauth_client_id and oauth_client_secret need sasl_mechanism=OAUTHBEARER",
            ),
            (
                bool(certificate) != bool(key),
                "ssl_certificate_location and ssl_key_location are only of use together (one file may hold both)",
            ),
            (
                bool(self.ssl_key_password.get_secret_value()) and not key,
                "ssl_key_password needs ssl_key_location",
            ),
            (
                bool(certificate) and not tls,
                "ssl_certificate_location is of no use without security_protocol=SSL or SASL_SSL",
            ),
        )


class TopicSettings(Group):
    work_partitions: int = Field(8, ge=1)
    """Partitions of plan, chunk, assembly and cleanup work; 8 times the most pods is a good number."""
    state_partitions: int = Field(8, ge=1)
    """Partitions of job-events and job-state; equal, and never changed afterwards."""
    public_partitions: int = Field(8, ge=1)
    """Partitions of jobs, control, progress, partials, results, dead-letters and audit."""
    replication_factor: int = Field(3, ge=1)
    """Copies of each partition; 1 on a single broker."""
    min_insync_replicas: int = Field(2, ge=1)
    """Copies that must confirm; less than 2 voids the promises when a broker dies."""
    jobs_retention_hours: int = Field(168, ge=1)
    """How long job requests stay, in hours."""
    work_retention_hours: int = Field(168, ge=1)
    """How long work events stay, in hours: a job older than this is failed with JOB_EXPIRED."""
    results_retention_hours: int = Field(720, ge=1)
    """How long result, progress and partial events stay, in hours."""
    audit_retention_hours: int = Field(8760, ge=1)
    """How long the events of the audit trail stay, in hours."""


class StoreSettings(Group):
    endpoint: str = "localhost:9000"
    """MinIO or S3 endpoint, host:port without a scheme."""
    access_key: SecretStr = SecretStr("")
    """Access key."""
    secret_key: SecretStr = SecretStr("")
    """Secret key."""
    session_token: SecretStr = SecretStr("")
    """Session token of temporary credentials; empty: none."""
    secure: bool = True
    """Use TLS."""
    region: str = "us-east-1"
    """Region; given, so that no call is needed to find it out."""
    work_bucket: str = "transcription-work"
    """Bucket for chunk audio, windows and checkpoints; emptied by cleanup."""
    results_bucket: str = "transcription-results"
    """Bucket for results/<job>/<run>/."""
    request_timeout_s: float = Field(30.0, gt=0)
    """Longest silence of the store within one request, in seconds."""
    ca_file: str = ""
    """File with the certificates to trust; empty: the system's."""
    encryption: Literal["none", "sse-s3", "sse-kms", "sse-c"] = "none"
    """Encryption at rest, asked for with each object in the work and results buckets: by the store's own key (sse-s3),
    by a key in its KMS (sse-kms), or by a key that we send and it does not keep (sse-c). none: as the buckets say."""
    kms_key_id: str = ""
    """Name of the key for sse-kms."""
    sse_c_key: SecretStr = SecretStr("")
    """Key for sse-c, 32 bytes as base64. Whoever reads results needs it, too; if it is lost, so are they."""
    work_expiry_days: int = Field(14, ge=1)
    """`whisperx-consumer buckets create` lets objects in the work bucket expire after so many days."""
    results_expiry_days: int = Field(0, ge=0)
    """The same for the results bucket; 0: results do not expire by a rule of ours, only versions of them that were
    overwritten or removed."""

    @property
    def has_credentials(self) -> bool:
        return bool(self.access_key.get_secret_value() and self.secret_key.get_secret_value())

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        if not endpoint or "/" in endpoint or any(character.isspace() for character in endpoint):
            raise ValueError("write host:port, without http:// and without a path; `secure` says whether TLS is used")
        return endpoint

    @model_validator(mode="after")
    def _encryption_can_work(self) -> Self:
        if self.encryption in ("sse-kms", "sse-c") and not self.secure:
            raise ValueError(f"encryption={self.encryption} needs TLS: set secure=true, or choose sse-s3")
        if self.encryption == "sse-kms" and not self.kms_key_id:
            raise ValueError("encryption=sse-kms needs kms_key_id, the name of a key in the store's KMS")
        if self.encryption == "sse-c" and not _is_key(self.sse_c_key.get_secret_value()):
            raise ValueError(
                "encryption=sse-c needs sse_c_key, 32 bytes as base64: `openssl rand -base64 32` makes one"
            )
        return self


def _is_key(text: str) -> bool:
    """Whether it is what AES-256 takes, as base64."""
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


class RegistrySettings(Group):
    url: str = ""
    """Schema registry (Confluent-compatible API); empty: Avro single-object encoding without a registry."""
    username: str = ""
    """Name to log in with."""
    password: SecretStr = SecretStr("")
    """Password to log in with."""
    ca_file: str = ""
    """File with the certificates to trust; empty: the system's."""
    auto_register: bool = True
    """Register our schemas at start; false where only a pipeline may register."""


class ModelSettings(Group):
    allowed: tuple[str, ...] = ("large-v3",)
    """Models that a job may name: model directories under `directory`, or hub names. The first is the default."""
    directory: Path | None = None
    """Folder that holds one folder per model, each with its model.json; null: only hub names from the local cache."""
    download: bool = False
    """May fetch missing models from the hub. Off: nothing downloads at run time."""
    hub_cache: Path | None = None
    """Cache of hub models; null: the hub library's own default."""
    hub_token: SecretStr = SecretStr("")
    """Token for gated hub models (pyannote community-1)."""
    align_models: dict[str, str] = Field(default_factory=dict)
    """Alignment model per language as JSON, {"de": "name or directory"}; whisperx's own choice otherwise."""
    diarization: str = "pyannote/speaker-diarization-community-1"
    """Diarization pipeline: hub name or directory, for models that do not bring their own."""
    max_align_models: int = Field(3, ge=1)
    """Alignment models kept in memory; the one unused for longest goes first."""


class DeviceSettings(Group):
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute: auto takes CUDA when it works, else the CPU, and says so in the log."""
    compute_type: str = "auto"
    """Number type of the recogniser; auto: float16 on CUDA, int8 on the CPU."""
    batch_size: int = Field(16, ge=1, le=128)
    """Windows recognised together on CUDA; halved by itself when memory runs out."""
    cpu_batch_size: int = Field(4, ge=1, le=64)
    """Windows recognised together on the CPU; each takes about 45 MB more with a model of base size."""
    cpu_threads: int = Field(0, ge=0)
    """Threads on the CPU; 0: one per core that this process may use."""
    cpu_fallback: bool = True
    """Go on on the CPU when the GPU has no room even for the smallest batch."""


class LimitSettings(Group):
    max_recording_bytes: int = Field(8 * GIB, ge=1)
    """Largest recording in bytes; refused from the stat, before a byte is read."""
    max_duration_s: float = Field(48 * 3600.0, gt=0)
    """Longest recording in seconds."""
    max_channels: int = Field(32, ge=1)
    """Most channels of a sound track."""
    max_transcribed_channels: int = Field(8, ge=1)
    """Most channels of a sound track that a job may have transcribed apart (multichannel); each costs as much as a
    recording of its own."""
    max_sample_rate_hz: int = Field(384_000, ge=8_000)
    """Highest sample rate in hertz."""
    decoder_memory_bytes: int = Field(1 * GIB, ge=128 * MIB)
    """Address space of the decoder process beyond its start, in bytes."""
    decoder_stall_s: float = Field(60.0, gt=0)
    """A decoder that gives nothing for this long, while its input is answered, is ended, in seconds."""
    max_streams: int = Field(256, ge=1)
    """Most tracks of any kind (sound, pictures, subtitles, attachments) in one recording."""
    max_expansion: int = Field(3_000, ge=100)
    """Bytes of samples per byte read, beyond the first 32 MiB; digital silence in FLAC comes to 1,500 at most."""
    decoder_grace_s: float = Field(30.0, gt=0)
    """What a decoder may work before it must have given sound for it, in seconds; also what it may be waited for."""
    decoder_s_per_audio_s: float = Field(0.5, gt=0)
    """And beyond that, seconds of work per second of sound. Ordinary formats need about a thousandth."""
    allowed_buckets: tuple[str, ...] = ()
    """Buckets that jobs may name, or parts of them as bucket/prefix/ with a slash at the end; empty: every bucket that
    the credentials can read. Never the work and results buckets."""
    may_delete_recordings: bool = False
    """Jobs may ask that their recording be deleted once they have completed (options.delete_recording). Off: such a job
    is refused with DELETION_NOT_ALLOWED, and what was admitted before keeps its recording."""

    @field_validator("allowed_buckets")
    @classmethod
    def _prefixes_end(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        """Else "calls/team-a" would allow the recordings of team-abc too."""
        for place in places:
            if not place or place.startswith("/") or ("/" in place and not place.endswith("/")):
                raise ValueError("give a bucket as calls, or a part of one as calls/team-a/ with a slash at the end")
        return places


class ChunkSettings(Group):
    length_s: float = Field(300.0, ge=10)
    """Target length of a chunk in seconds; it is cut at the next pause."""
    overlap_s: float = Field(30.0, ge=0)
    """Chunk overlap in seconds: audio stored beyond the chunk's span. Raised to the diarization window if shorter."""
    max_bytes: int = Field(500_000_000, ge=1_000_000)
    """Ceiling of one chunk object in bytes; lowers the length if need be."""


class VadSettings(Group):
    policy: Literal["silero", "whisperx"] = "silero"
    """Window policy for jobs that name none."""


class CoordinatorSettings(Group):
    chunks_in_flight: int = Field(64, ge=1)
    """Released and unfinished chunks per lane over all partitions; at least one per job is always released."""
    planned_ahead_s: float = Field(6 * 3600.0, gt=0)
    """Planned but unfinished audio in seconds above which no further recording is planned."""
    plan_attempts: int = Field(4, ge=1)
    """Tries of a plan before the job fails."""
    chunk_attempts: int = Field(4, ge=1)
    """Tries of a chunk before it fails for good."""
    assembly_attempts: int = Field(5, ge=1)
    """Tries of an assembly before the job fails."""
    cleanup_attempts: int = Field(10, ge=1)
    """Tries of a cleanup before it is left to the bucket's lifecycle rules."""
    retry_base_s: float = Field(5.0, gt=0)
    """Wait before the second try in seconds; doubled for each further one, with jitter."""
    retry_max_s: float = Field(300.0, gt=0)
    """Longest wait between tries in seconds."""
    progress_interval_s: float = Field(2.0, ge=0)
    """Shortest time between two progress events of a job in seconds, unless its stage changes."""
    evict_after_s: float = Field(3600.0, ge=0)
    """How long a finished job's state is kept, in seconds; later duplicates are known by the manifest."""


class WorkerSettings(Group):
    id: str = ""
    """Name of this process in transactional ids; empty: host name and process id, which a container keeps."""
    handoff_s: float = Field(6 * 3600.0, gt=0)
    """Audio taken from Kafka and not finished, in seconds. Jobs take turns among what a worker has taken, so this is as
    much as may be released to one: coordinator.chunks_in_flight times chunks.length_s. Only its records are held."""
    low_lane_share: float = Field(0.1, ge=0, le=0.5)
    """Share of the chunks that the lower lanes get in turn, even when the highest one always has work."""
    in_place_tries: int = Field(3, ge=1)
    """Tries in place, with backoff, before a dependency's failure is reported."""
    revoke_wait_s: float = Field(20.0, ge=0)
    """How long running work may hold up the hand-over of its partition in a rebalance, in seconds."""
    grace_s: float = Field(60.0, ge=0)
    """After SIGTERM, how long running work may go on, in seconds; less than the pod's own grace period."""
    fatal_attempts: int = Field(3, ge=1)
    """An event that was begun this often and each time ended its process is given up with WORKER_KILLED."""
    refusal_window: int = Field(100, ge=0)
    """When nearly all of so many events could not be read, the worker stops and is not ready; 0: it goes on."""
    refusal_pause_s: float = Field(60.0, gt=0)
    """Once stopped for refusing nearly everything, one event is tried every so many seconds."""
    step_limit_s: float = Field(900.0, gt=0)
    """Work that gives no sign of life this long, in seconds, is taken for stuck: /healthz fails."""


class ResultSettings(Group):
    inline_max_bytes: int = Field(128_000, ge=0, le=200_000)
    """A transcript up to this size in bytes also travels in the event."""
    keep_work_on_failure: bool = True
    """Keep chunk audio and checkpoints of failed runs, so that a retry can use them."""


class ServerSettings(Group):
    host: str = "0.0.0.0"  # noqa: S104  (a pod's probes and scrapes come from outside it)
    """Address of /metrics, /healthz and /readyz."""
    port: int = Field(9108, ge=0, le=65535)
    """Port of /metrics, /healthz and /readyz; 0: none."""


class LogSettings(Group):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is written."""
    format: Literal["json", "text"] = "json"
    """json for machines, text for a terminal."""


class SentrySettings(Group):
    dsn: SecretStr = SecretStr("")
    """Sentry project; empty: nothing is sent."""
    environment: str = "production"
    """Name of the environment in Sentry."""
    traces_sample_rate: float = Field(0.0, ge=0, le=1)
    """Share of traces sent."""


class Settings(BaseSettings):
    """All settings. `whisperx-consumer config` shows the effective ones with secrets masked."""

    model_config = SettingsConfigDict(
        env_prefix="WHISPERX_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: object, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls)

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    store: StoreSettings = StoreSettings()
    registry: RegistrySettings = RegistrySettings()
    models: ModelSettings = ModelSettings()
    device: DeviceSettings = DeviceSettings()
    limits: LimitSettings = LimitSettings()
    chunks: ChunkSettings = ChunkSettings()
    vad: VadSettings = VadSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    worker: WorkerSettings = WorkerSettings()
    results: ResultSettings = ResultSettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    sentry: SentrySettings = SentrySettings()
