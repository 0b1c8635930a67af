from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from consumer.events import JobOptions
from producer_tools.faults import WrongUsage
from producer_tools.option_flags import add_option_flags, option_flags, options_from
from tests.strategies import job_options


def parsed(*arguments: str) -> JobOptions:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_option_flags(parser)
    return options_from(parser.parse_args(arguments))


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, BaseModel):
            yield from leaves(inner, (*place, name))
        else:
            yield (*place, name), inner


def as_flags(options: JobOptions) -> list[str]:
    """The command line that asks for exactly these options."""
    flags = {one.place: one.flag for one in option_flags()}
    defaults = dict(leaves(JobOptions()))
    found = []
    for place, value in leaves(options):
        if value == defaults[place]:
            continue
        if isinstance(value, bool):
            found.append(flags[place])
        elif isinstance(value, tuple):
            found.append(f"{flags[place]}={','.join(value)}")
        else:
            found.append(f"{flags[place]}={value}")
    return found


def test_every_option_has_a_flag_of_its_own() -> None:
    flags = list(option_flags())
    assert [one.place for one in flags] == [place for place, _ in leaves(JobOptions())]
    assert len({one.flag for one in flags}) == len(flags)


def test_no_flags_are_the_defaults() -> None:
    assert parsed() == JobOptions()


@given(job_options(), st.lists(st.text("abcäß -'", min_size=1), max_size=3))
def test_any_options_can_be_asked_for(options: JobOptions, words: list[str]) -> None:
    """Hotwords are the exception: one cannot hold a comma, begin or end with a space, or be the bare `--`."""
    hotwords = tuple(word.strip() for word in words if word.strip() not in ("", "--"))
    wanted = options.model_copy(update={"hotwords": hotwords})
    assert parsed(*as_flags(wanted)) == wanted


def test_a_flag_that_turns_off_says_so() -> None:
    options = parsed("--no-align", "--no-diarize", "--no-speaker-labels", "--embeddings")
    assert not options.align.enabled
    assert not options.diarize.enabled
    assert not options.subtitles.speaker_labels
    assert options.diarize.embeddings


def test_track_and_channels_can_be_chosen() -> None:
    options = parsed("--track", "1", "--multichannel", "--no-diarize")
    assert (options.track, options.multichannel, options.tells_voices_apart) == (1, True, False)
    assert not parsed("--multichannel").tells_voices_apart
    assert parsed().tells_voices_apart


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--beam-size", "11"], "beam_size"),
        (["--language", "german"], "language"),
        (["--formats", "json,pdf"], "output_formats"),
        (["--num-speakers", "2", "--max-speakers", "3"], "not both"),
        (["--multichannel", "--num-speakers", "2"], "num_speakers has no effect"),
        (["--track", "-1"], "track"),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_reason(arguments: list[str], reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason):
        parsed(*arguments)
