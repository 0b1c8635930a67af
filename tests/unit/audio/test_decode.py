"""Nothing that is wrong with a file, or with the process that decodes it, escapes. The formats have their own table."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import pytest

from consumer.audio import decode as decode_module
from consumer.audio.decode import decode
from consumer.audio.decoders import Decoders
from consumer.audio.sniff import WAV
from consumer.errors import (
    DecoderCrashed,
    DecoderLimit,
    EmptyRecording,
    NoSoundTrack,
    RecordingTooLong,
    StoreUnavailable,
    UnreadableAudio,
    UnsupportedMedia,
)
from consumer.settings import LimitSettings
from tests import media
from tests.fuzz.pieces import pieces_of
from tests.unit.audio.sources import BytesSource, decode_all, read_out
from tests.wrong_decoders import deceived, program_with


class TestAFileWithItsIndexAtTheEnd:
    def test_is_not_read_twice(self) -> None:
        source = BytesSource(media.FORMATS["m4a-index-at-end"](media.tone(400), 16_000))
        assert source.size_bytes > 2 << 20
        decode_all(source)
        assert sum(length for _, length in source.reads) <= source.size_bytes + (2 << 20)


class TestAFileThatBreaksOff:
    @pytest.mark.parametrize("name", ["wav-s16", "mp3-cbr", "mp3-vbr", "flac", "m4a-index-in-front"])
    def test_is_used_as_far_as_it_goes_with_a_warning(self, name: str) -> None:
        data = media.FORMATS[name](media.tone(20), 16_000)
        decoded = decode_all(data[: len(data) * 6 // 10])
        assert 8 < len(decoded.samples) / 16_000 < 14
        assert [w.code for w in decoded.warnings] == ["RECORDING_TRUNCATED"]

    def test_is_refused_when_nothing_can_be_decoded(self) -> None:
        data = media.FORMATS["m4a-index-at-end"](media.tone(20), 16_000)
        with pytest.raises(UnreadableAudio, match="upload it again"):
            decode_all(data[: len(data) // 2])

    def test_has_its_damaged_packets_counted(self) -> None:
        data = bytearray(media.FORMATS["flac"](media.tone(20), 16_000))
        for at in range(len(data) // 3, len(data) * 2 // 3):
            data[at] ^= 0x5A
        decoded = decode_all(bytes(data))
        assert len(decoded.samples) > 5 * 16_000
        assert {w.code for w in decoded.warnings} <= {"RECORDING_TRUNCATED", "RECORDING_DAMAGED"}
        assert decoded.warnings


class TestAFileIsRefused:
    @pytest.mark.parametrize(
        "data", [media.wav_header(0), media.wav_header(32_000)], ids=["announces nothing", "announces a second"]
    )
    def test_when_it_is_a_header_only(self, data: bytes) -> None:
        with pytest.raises((EmptyRecording, UnreadableAudio)):
            decode_all(data)

    def test_when_it_has_pictures_only(self) -> None:
        with pytest.raises(NoSoundTrack):
            decode_all(media.silent_film())

    def test_when_it_is_noise_behind_a_good_start(self) -> None:
        noise = np.random.default_rng(1).bytes(200_000)
        with pytest.raises((UnreadableAudio, NoSoundTrack, EmptyRecording, UnsupportedMedia)):
            decode_all(media.FORMATS["m4a-index-in-front"](media.tone(1), 16_000)[:40] + noise)

    def test_when_its_codec_is_not_on_the_list(self) -> None:
        with pytest.raises(UnsupportedMedia, match="convert"):
            decode_all(media.encode(media.tone(1), 16_000, "wav", "adpcm_yamaha"))

    def test_when_it_has_too_many_channels_or_too_high_a_rate(self) -> None:
        with pytest.raises(UnsupportedMedia, match="6 channels"):
            decode_all(media.wav(media.tone(0.1, channels=6)), LimitSettings(max_channels=4))
        with pytest.raises(UnsupportedMedia, match="96000 Hz"):
            decode_all(media.wav(media.tone(0.1, 96_000), 96_000), LimitSettings(max_sample_rate_hz=48_000))

    def test_when_it_is_longer_than_its_header_admits(self) -> None:
        data = media.FORMATS["mp3-without-id3"](media.tone(30), 16_000)
        with pytest.raises(RecordingTooLong):
            decode_all(data, LimitSettings(max_duration_s=10))

    def test_when_it_expands_beyond_measure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decode_module, "EXPANSION_FREE_BYTES", 1 << 20)
        with pytest.raises(DecoderLimit, match="expands"):
            decode_all(media.encode(media.silence(600), 16_000, "flac", "flac"), LimitSettings(max_expansion=100))

    def test_when_it_makes_us_read_it_over_and_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decode_module, "REREAD_FREE_BYTES", -(1 << 40))
        with pytest.raises(DecoderLimit, match="times over"):
            decode_all(media.wav(media.tone(1)))


def test_a_track_that_turns_up_in_mid_file_is_left_out() -> None:
    """PyAV stumbles over it behind the last packet: a page of the first link stands in the second one's beginning."""
    one = [media.FORMATS["ogg-opus"](media.tone(1, 48_000), 48_000) for _ in range(2)]
    (_, _, sound, *_), (begin, _, rest, *_) = map(pieces_of, one)
    spoiled = one[0] + one[1][: begin.end] + one[0][sound.start : sound.end] + one[1][rest.start :]
    assert len(decode_all(spoiled).samples) / 16_000 == pytest.approx(2.0, abs=0.1)


class TestTheDecoderProcess:
    def test_says_once_which_walls_its_machine_lacks(self, caplog: pytest.LogCaptureFixture) -> None:
        hidden = "import sys\nsys.modules['landlockpy'] = sys.modules['pyseccomp'] = None\n"
        decode_module._tell_once.cache_clear()
        with contextlib.closing(Decoders(program_with(hidden))) as bare:
            for _ in range(2):
                with decode(BytesSource(media.wav(media.tone(1))), LimitSettings(), bare) as decoding:
                    assert len(read_out(decoding).samples) == 16_000
        (record,) = (record for record in caplog.records if record.name == decode_module.__name__)
        walls = [wall.partition(":")[0] for wall in vars(record)["missing"]]
        assert (record.levelname, walls) == ("WARNING", ["Landlock", "seccomp"])

    def test_that_dies_may_be_tried_again(self) -> None:
        source = BytesSource(media.wav(media.tone(300)))
        with decode(source, LimitSettings()) as decoding:
            blocks = decoding.blocks()
            next(blocks)
            os.kill(decoding.process_id, signal.SIGSEGV)
            with pytest.raises(DecoderCrashed, match="SIGSEGV"):
                list(blocks)

    def test_that_comes_upon_a_bug_says_which(self) -> None:
        wrong = "from consumer.audio import decoder_process\ndecoder_process.decode = lambda link, order: 1 / 0\n"
        with (
            contextlib.closing(Decoders(program_with(wrong))) as decoders,
            pytest.raises(DecoderCrashed, match="ZeroDivisionError: division by zero"),
            decode(BytesSource(media.wav(media.tone(1))), LimitSettings(), decoders),
        ):
            pass

    def test_that_says_nothing_is_ended(self) -> None:
        source = BytesSource(media.wav(media.tone(300)))
        with decode(source, LimitSettings(decoder_stall_s=0.2)) as decoding:
            blocks = decoding.blocks()
            os.kill(decoding.process_id, signal.SIGSTOP)
            with pytest.raises(DecoderLimit, match=r"0\.2 s"):
                list(blocks)
        with pytest.raises(ProcessLookupError):
            os.kill(decoding.process_id, 0)

    def test_that_is_not_wanted_any_more_is_ended(self) -> None:
        with decode(BytesSource(media.wav(media.tone(300))), LimitSettings()) as decoding:
            next(decoding.blocks())
        with pytest.raises(ProcessLookupError):
            os.kill(decoding.process_id, 0)

    def test_is_ended_too_when_the_store_fails(self) -> None:
        def fail(offset: int) -> None:
            if offset:
                raise StoreUnavailable("the store does not answer")

        source = BytesSource(media.wav(media.tone(300)), before_read=fail)
        with decode(source, LimitSettings()) as decoding, pytest.raises(StoreUnavailable):
            read_out(decoding)
        with pytest.raises(ProcessLookupError):
            os.kill(decoding.process_id, 0)

    def test_reads_a_file_only_with_the_demuxer_of_its_type(self) -> None:
        """The allow-list decides; FFmpeg may not find out better by itself."""
        flac = BytesSource(media.FORMATS["flac"](media.tone(3), 16_000))
        assert decode_all(flac).codec == "flac"
        with (
            contextlib.closing(Decoders(deceived(WAV))) as decoders,
            pytest.raises(UnreadableAudio),
            decode(flac, LimitSettings(), decoders) as decoding,
        ):
            read_out(decoding)

    def test_keeps_to_a_store_that_gives_too_little(self) -> None:
        source = BytesSource(media.wav(media.tone(3)))
        source.data = source.data[:1000]
        short = BytesSource(source.data)
        short.read = lambda offset, length: source.data[offset : offset + length][:-1]  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="try again"), decode(short, LimitSettings()):
            pass
