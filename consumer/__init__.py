"""whisperx-consumer: job events on Kafka, recordings in MinIO, WhisperX on GPUs."""

import os

# Libraries decide while they are imported whether they report home, so this comes before the first of them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
