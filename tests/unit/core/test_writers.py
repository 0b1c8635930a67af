from __future__ import annotations

import csv
import html
import io
import json
import re

import pytest
from hypothesis import given

from consumer.core.speakers import assign_speakers
from consumer.core.speech import Diarization, Segment, Turn, Word
from consumer.core.transcript import Transcript
from consumer.core.writers import CONTENT_TYPES, formats_to_write, write
from consumer.events import OutputFormat, SubtitleOptions
from tests.unit.core.speech_strategies import exclusive_turns, recordings

SHAPE = SubtitleOptions()
CONVERSATION = Transcript(
    segments=(
        Segment(0.5, 2.0, " Profit & loss <gross>", (), speaker="SPEAKER_00"),
        Segment(3661.0, 3662.5, " a --> b\tand ---> c", (Word("a", 3661.0, 3661.1),), speaker="SPEAKER_01"),
    ),
    language="en",
    duration_s=3700.0,
    recording_name="board meeting",
    diarized=True,
    turns=(Turn(3660.5, 3663.0, "SPEAKER_01"), Turn(0.25, 2.5, "SPEAKER_00")),
)


def _written(output_format: OutputFormat, transcript: Transcript = CONVERSATION) -> str:
    return write(output_format, transcript, SHAPE).decode()


def test_srt_counts_from_one_and_keeps_arrows_out_of_the_text() -> None:
    assert _written(OutputFormat.SRT) == (
        "1\n00:00:00,500 --> 00:00:02,000\n[SPEAKER_00]: Profit & loss <gross>\n"
        "\n2\n01:01:01,000 --> 01:01:02,500\n[SPEAKER_01]: a -> b and -> c\n"
    )


def test_vtt_has_its_header_voices_and_escapes() -> None:
    assert _written(OutputFormat.VTT) == (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:02.000\n<v SPEAKER_00>Profit &amp; loss &lt;gross&gt;\n"
        "\n01:01:01.000 --> 01:01:02.500\n<v SPEAKER_01>a --&gt; b and ---&gt; c\n"
    )


def test_txt_is_one_line_per_segment_with_its_speaker() -> None:
    assert _written(OutputFormat.TXT) == ("[SPEAKER_00]: Profit & loss <gross>\n[SPEAKER_01]: a --> b and ---> c\n")


def test_tsv_has_milliseconds_and_a_speaker_column_after_a_diarization() -> None:
    assert _written(OutputFormat.TSV) == (
        "start\tend\ttext\tspeaker\n"
        "500\t2000\tProfit & loss <gross>\tSPEAKER_00\n"
        "3661000\t3662500\ta --> b and ---> c\tSPEAKER_01\n"
    )


def test_tsv_without_a_diarization_is_whispers() -> None:
    transcript = Transcript((Segment(0.0, 1.2344, " Good day."),), "en", 2.0)
    assert _written(OutputFormat.TSV, transcript) == "start\tend\ttext\n0\t1234\tGood day.\n"


def test_rttm_has_the_turns_in_order_and_a_name_without_spaces() -> None:
    assert _written(OutputFormat.RTTM) == (
        "SPEAKER board_meeting 1 0.250 2.250 <NA> <NA> SPEAKER_00 <NA> <NA>\n"
        "SPEAKER board_meeting 1 3660.500 2.500 <NA> <NA> SPEAKER_01 <NA> <NA>\n"
    )


def test_nothing_said_makes_valid_empty_files() -> None:
    silent = Transcript((), None, 60.0, diarized=True)
    assert {output_format.value: _written(output_format, silent) for output_format in OutputFormat} == {
        "json": '{"duration_s":60.0,"text":"","segments":[],"word_segments":[],'
        '"speakers":[],"overlaps":[],"gaps":[]}\n',
        "srt": "",
        "vtt": "WEBVTT\n",
        "txt": "",
        "tsv": "start\tend\ttext\tspeaker\n",
        "rttm": "",
    }


def test_json_is_always_written_and_rttm_only_after_a_diarization() -> None:
    assert formats_to_write([], diarized=True) == (OutputFormat.JSON,)
    assert formats_to_write([OutputFormat.RTTM, OutputFormat.SRT], diarized=False) == (
        OutputFormat.JSON,
        OutputFormat.SRT,
    )
    assert formats_to_write(OutputFormat, diarized=True) == tuple(OutputFormat)


def test_every_format_has_a_content_type() -> None:
    assert set(CONTENT_TYPES) == set(OutputFormat)


def _cue_texts(file: str) -> list[str]:
    """What a reader sees: the lines of each block behind its times."""
    blocks = file.strip().split("\n\n")
    return [block.split(" --> ", 1)[1].split("\n", 1)[1] for block in blocks if re.search(r"\d --> \d", block)]


def _read_srt(file: str) -> str:
    assert [int(block.split("\n", 1)[0]) for block in file.strip().split("\n\n") if block] == list(
        range(1, len(_cue_texts(file)) + 1)
    )
    return " ".join(re.sub(r"^\[SPEAKER_\d\d\]:", "", text) for text in _cue_texts(file))


def _read_vtt(file: str) -> str:
    return " ".join(html.unescape(re.sub(r"^<v SPEAKER_\d\d>", "", text)) for text in _cue_texts(file))


def _read_txt(file: str) -> str:
    return " ".join(re.sub(r"^\[SPEAKER_\d\d\]: ", "", line) for line in file.splitlines())


def _read_tsv(file: str) -> str:
    rows = csv.DictReader(io.StringIO(file), delimiter="\t", quoting=csv.QUOTE_NONE)
    return " ".join(row["text"] for row in rows)


def _read_json(file: str) -> str:
    return str(json.loads(file)["text"])


READERS = {
    OutputFormat.SRT: _read_srt,
    OutputFormat.VTT: _read_vtt,
    OutputFormat.TXT: _read_txt,
    OutputFormat.TSV: _read_tsv,
    OutputFormat.JSON: _read_json,
}


@pytest.mark.parametrize("output_format", list(READERS))
@given(segments=recordings(), turns=exclusive_turns())
def test_every_word_appears_once_in_every_text_format(
    output_format: OutputFormat, segments: tuple[Segment, ...], turns: tuple[Turn, ...]
) -> None:
    """Also where alignment failed, and whatever the text holds."""
    mono = tuple(segment for segment in segments if segment.channel == 0)
    spoken = assign_speakers(mono, Diarization(turns, turns))
    transcript = Transcript(spoken, "en", 100.0, diarized=True, turns=turns)
    heard = READERS[output_format](write(output_format, transcript, SHAPE).decode())
    expected = " ".join(segment.text for segment in mono)
    if output_format is OutputFormat.SRT:
        expected = " ".join(re.sub("--+>", "->", word) for word in expected.split())
    assert "".join(heard.split()) == "".join(expected.split())


@given(segments=recordings())
def test_no_text_ends_a_cue_early(segments: tuple[Segment, ...]) -> None:
    transcript = Transcript(segments, "en", 100.0)
    for output_format in (OutputFormat.SRT, OutputFormat.VTT):
        for line in _written(output_format, transcript).splitlines():
            assert "-->" not in line or re.fullmatch(r"[\d:.,]+ --> [\d:.,]+", line)
