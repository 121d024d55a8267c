"""What all tests of the report share."""

import pytest

from bench import sources
from tests.records import FINGERPRINT


@pytest.fixture(autouse=True)
def _current_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources of every record of tests/records.py are the current ones."""
    monkeypatch.setattr(sources, "fingerprint", lambda architecture: FINGERPRINT)
