"""The pages for operators name nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consumer.metrics import Metrics
from consumer.settings_reference import reference

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "operations.md"
every_page = pytest.mark.parametrize("page", [PAGE, DOCS / "store.md"], ids=lambda page: page.name)


def test_every_metric_on_the_page_exists() -> None:
    named = set(re.findall(r"whisperx_\w+", PAGE.read_text(encoding="utf-8")))
    assert named
    assert named <= {metric.name for metric in Metrics().definitions}


@every_page
def test_every_variable_on_the_page_exists(page: Path) -> None:
    named = set(re.findall(r"WHISPERX_[A-Z_]+", page.read_text(encoding="utf-8")))
    assert named
    assert named <= {setting.variable for _, settings in reference() for setting in settings}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
