"""Where real cases lie, for the tests that look at them."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cases: $GMMAS_REAL_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GMMAS_REAL_DATA", _BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real cases: {folder} is not there; set GMMAS_REAL_DATA to their folder")
    return folder
