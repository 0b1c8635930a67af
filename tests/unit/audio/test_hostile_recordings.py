"""What an attacker sends is refused with a code, or heard as far as it is true; and nothing that it names is opened."""

from __future__ import annotations

import pytest

from consumer.errors import Rejected
from tests.hostile_cases import CASES
from tests.unit.audio.sources import decode_all


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_recording_ends_as_the_table_says(name: str) -> None:
    case = CASES[name]
    data = case.make()
    if isinstance(case.outcome, str):
        with pytest.raises(Rejected) as caught:
            decode_all(data)
        assert caught.value.code == case.outcome
        assert caught.value.message.startswith("recordings/talk ")
        assert "; " in caught.value.message, "what to do about it"
        return
    decoded = decode_all(data)
    assert len(decoded.samples) / 16_000 == pytest.approx(case.outcome, abs=0.02)
    assert [warning.code for warning in decoded.warnings] == ["RECORDING_TRUNCATED"] * case.truncated
