"""docs/results.md shows real files: each example on the page is what the writers make of one small transcript."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.core.results import ResultManifest
from consumer.core.speakers import assign_speakers
from consumer.core.speech import Diarization, Segment, Turn, Word
from consumer.core.transcript import Transcript
from consumer.core.writers import write
from consumer.events import OutputFormat, SubtitleOptions

PAGE = (Path(__file__).parents[3] / "docs" / "results.md").read_text(encoding="utf-8")

TURNS = (Turn(0.4, 2.7, "SPEAKER_00"), Turn(2.6, 4.5, "SPEAKER_01"))
HEARD = (
    Segment(
        start_s=0.48,
        end_s=4.2,
        text=" What did it cost? About 90 euros.",
        words=(
            Word("What", 0.52, 0.71, 0.931),
            Word("did", 0.75, 0.92, 0.884),
            Word("it", 0.97, 1.1, 0.97),
            Word("cost?", 1.2, 1.66, 0.952),
            Word("About", 2.81, 3.1, 0.762),
            Word("90"),
            Word("euros.", 3.4, 3.98, 0.84),
        ),
        timing="aligned",
        avg_logprob=-0.213,
    ),
)
EXAMPLE = Transcript(
    segments=assign_speakers(HEARD, Diarization(TURNS, (TURNS[0], Turn(2.7, 4.5, "SPEAKER_01")))),
    language="en",
    language_probability=0.981,
    duration_s=6.0,
    recording_name="invoice",
    diarized=True,
    turns=TURNS,
)


def _example(name: str) -> str:
    """The fenced block under the heading of the file."""
    section = PAGE.split(f"\n## transcript.{name}\n", 1)[1]
    return section.split("```", 2)[1].split("\n", 1)[1]


@pytest.mark.parametrize("output_format", [each for each in OutputFormat if each is not OutputFormat.JSON])
def test_the_example_on_the_page_is_what_is_written(output_format: OutputFormat) -> None:
    assert _example(output_format.value) == write(output_format, EXAMPLE, SubtitleOptions()).decode()


def test_the_json_on_the_page_is_what_is_written() -> None:
    assert json.loads(_example("json")) == json.loads(EXAMPLE.to_bytes())


def test_every_field_of_the_manifest_is_on_the_page() -> None:
    section = PAGE.split("\n## manifest.json\n", 1)[1]
    assert [name for name in ResultManifest.model_fields if f"| `{name}` |" not in section] == []
