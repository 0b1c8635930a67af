"""The page for operators names nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from consumer.metrics import Metrics
from consumer.settings_reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_every_metric_on_the_page_exists() -> None:
    named = set(re.findall(r"whisperx_\w+", PAGE.read_text(encoding="utf-8")))
    assert named
    assert named <= {metric.name for metric in Metrics().definitions}


def test_every_variable_on_the_page_exists() -> None:
    named = set(re.findall(r"WHISPERX_[A-Z_]+", PAGE.read_text(encoding="utf-8")))
    assert named
    assert named <= {setting.variable for _, settings in reference() for setting in settings}


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target
