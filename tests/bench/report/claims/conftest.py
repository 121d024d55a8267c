"""A store for the tests of claims."""

import pytest

from tests.judging import Made


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)
