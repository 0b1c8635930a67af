ARG BASE_IMAGE=python:3.11-slim-bookworm

# ── uv, which is not shipped ──
FROM ${BASE_IMAGE} AS uv
ARG UV_VERSION=0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    UV_PYTHON_DOWNLOADS=never
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src

# ── lock: what is to be installed, and nothing that is not in the lock ──
FROM uv AS lock
# speech: decoders and models. "speech demo" adds the embedded demo's object store. Empty: a light image for the roles
# intake, coordinate and cleanup.
ARG EXTRAS="speech"
COPY pyproject.toml uv.lock ./
RUN set -- ; for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done ; \
    /opt/uv/bin/uv export --frozen --no-dev --no-emit-project --quiet --output-file /requirements.txt "$@"

# ── dependencies: a large layer (7 GB), so it depends on the list above only: other changes leave it as it is ──
FROM uv AS dependencies
COPY --from=lock /requirements.txt /requirements.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv /opt/whisperx \
 && /opt/uv/bin/uv pip sync --python /opt/whisperx/bin/python --require-hashes /requirements.txt

# ── program: our own code, beside the environment ──
FROM dependencies AS program
COPY pyproject.toml README.md LICENSE ./
COPY consumer consumer
COPY schemas schemas
COPY producer_tools producer_tools
COPY demo demo
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv build --wheel --out-dir /dist \
 && /opt/uv/bin/uv pip install --python /opt/whisperx/bin/python --no-deps --target /opt/program /dist/*.whl

# ── run: the environment, a user without rights, one writable folder ──
FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 whisperx \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/whisperx --shell /usr/sbin/nologin whisperx \
 && install -d -o 10001 -g 10001 -m 0750 /var/cache/whisperx
COPY --from=dependencies /opt/whisperx /opt/whisperx
COPY --from=program /opt/program /opt/program
# Everything that libraries write goes to one folder, so that the root can be read-only. The CUDA libraries are in the
# environment; the driver comes from the NVIDIA container runtime. The three libraries that report their use to their
# makers are told not to.
ENV PATH=/opt/program/bin:/opt/whisperx/bin:$PATH \
    PYTHONPATH=/opt/program \
    HOME=/var/cache/whisperx \
    TMPDIR=/var/cache/whisperx \
    XDG_CACHE_HOME=/var/cache/whisperx/xdg \
    HF_HOME=/var/cache/whisperx/huggingface \
    TORCH_HOME=/var/cache/whisperx/torch \
    MPLCONFIGDIR=/var/cache/whisperx/matplotlib \
    NUMBA_CACHE_DIR=/var/cache/whisperx/numba \
    HF_HUB_DISABLE_TELEMETRY=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYANNOTE_METRICS_ENABLED=0 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# An image with decoders has what closes them. A base image without libseccomp would start, and only its log would tell.
RUN if [ -d /opt/whisperx/lib/python3.11/site-packages/av ]; then \
    python -c 'from consumer.audio import sandbox; assert sandbox.landlockpy and sandbox.seccomp'; fi
# Last, because the revision changes with every build.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="whisperx-consumer" \
      org.opencontainers.image.description="Event-driven audio transcription: Kafka, MinIO, WhisperX" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /var/cache/whisperx
EXPOSE 9108
STOPSIGNAL SIGTERM
ENTRYPOINT ["whisperx-consumer"]
CMD ["--help"]
