"""What several files of these tests share."""

import gc

import pytest


@pytest.fixture
def collected():
    """What a test abandons is collected before the next test, where its warning would count."""
    yield
    gc.collect()
