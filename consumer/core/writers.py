"""The result files, written from one transcript. No text gets lost because words could not be aligned.

docs/results.md shows each of them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping

from consumer.core.pieces import one_line
from consumer.core.speech import Turn
from consumer.core.subtitles import Cue, make_cues
from consumer.core.transcript import Transcript
from consumer.events import OutputFormat, SubtitleOptions

ARROW = re.compile(r"--+>")
"""What stands between the times of a cue; inside the text it would end the cue."""

CONTENT_TYPES: Mapping[OutputFormat, str] = {
    OutputFormat.JSON: "application/json",
    OutputFormat.SRT: "application/x-subrip",
    OutputFormat.VTT: "text/vtt",
    OutputFormat.TXT: "text/plain; charset=utf-8",
    OutputFormat.TSV: "text/tab-separated-values; charset=utf-8",
    OutputFormat.RTTM: "text/plain; charset=utf-8",
}


def formats_to_write(asked: Iterable[OutputFormat], *, diarized: bool) -> tuple[OutputFormat, ...]:
    """JSON first and always; RTTM only after a diarization: an empty one would say that nobody spoke."""
    wanted = {OutputFormat.JSON, *asked} - (set() if diarized else {OutputFormat.RTTM})
    return tuple(sorted(wanted, key=list(OutputFormat).index))


def write(output_format: OutputFormat, transcript: Transcript, shape: SubtitleOptions) -> bytes:
    """One result file, UTF-8; the same transcript gives the same bytes."""
    return _WRITERS[output_format](transcript, shape)


def write_json(transcript: Transcript, _shape: SubtitleOptions) -> bytes:
    return transcript.to_bytes()


def write_srt(transcript: Transcript, shape: SubtitleOptions) -> bytes:
    cues = make_cues(transcript.segments, shape, written_labels=True)
    blocks = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_srt_text(cue)}\n"
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks).encode()


def write_vtt(transcript: Transcript, shape: SubtitleOptions) -> bytes:
    """WebVTT; speakers are voice tags, which take no room on the screen. Source: www.w3.org/TR/webvtt1, section 4."""
    cues = make_cues(transcript.segments, shape, written_labels=False)
    blocks = [f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue)}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks]).encode()


def write_txt(transcript: Transcript, _shape: SubtitleOptions) -> bytes:
    """One line per segment, `[SPEAKER_00]: ` before it where the speaker is known, as whisperX does."""
    spoken = [(segment.speaker, one_line(segment.text)) for segment in transcript.segments]
    lines = [f"[{speaker}]: {text}" if speaker else text for speaker, text in spoken if text]
    return _text_file(lines)


def write_tsv(transcript: Transcript, _shape: SubtitleOptions) -> bytes:
    """Whisper's three columns, times in whole milliseconds; a fourth with the speaker after a diarization."""
    rows = [["start", "end", "text", "speaker"]]
    rows += [
        [_ms(segment.start_s), _ms(segment.end_s), one_line(segment.text), segment.speaker or ""]
        for segment in transcript.segments
    ]
    return _text_file("\t".join(row if transcript.diarized else row[:3]) for row in rows)


def write_rttm(transcript: Transcript, _shape: SubtitleOptions) -> bytes:
    """Every turn, also where voices overlap. Source: NIST RT-09 evaluation plan, appendix A."""
    name = re.sub(r"\s+", "_", transcript.recording_name) or "recording"
    turns = sorted(transcript.turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker))
    return _text_file(_rttm_line(name, turn) for turn in turns)


def _rttm_line(name: str, turn: Turn) -> str:
    length_s = turn.end_s - turn.start_s
    return f"SPEAKER {name} 1 {turn.start_s:.3f} {length_s:.3f} <NA> <NA> {turn.speaker} <NA> <NA>"


def _srt_text(cue: Cue) -> str:
    return "\n".join(ARROW.sub("->", line) for line in cue.lines)


def _vtt_text(cue: Cue) -> str:
    voice = f"<v {html.escape(cue.speaker, quote=False)}>" if cue.speaker is not None else ""
    return voice + "\n".join(html.escape(line, quote=False) for line in cue.lines)


def _clock(ms: int, decimal_mark: str) -> str:
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{decimal_mark}{ms % 1000:03d}"


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def _text_file(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


_WRITERS: Mapping[OutputFormat, Callable[[Transcript, SubtitleOptions], bytes]] = {
    OutputFormat.JSON: write_json,
    OutputFormat.SRT: write_srt,
    OutputFormat.VTT: write_vtt,
    OutputFormat.TXT: write_txt,
    OutputFormat.TSV: write_tsv,
    OutputFormat.RTTM: write_rttm,
}
