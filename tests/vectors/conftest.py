"""Where the shared vectors are: an extra target, which says loudly when it has nothing to stand on."""

import os
from pathlib import Path

import pytest

BESIDE_THE_CHECKOUT = Path(__file__).parents[2].parent / "shared" / "vectors"


@pytest.fixture(scope="session")
def vectors():
    """Return the folder of the shared vectors (`UMEC_VECTORS`); without it these tests fail."""
    folder = Path(os.environ.get("UMEC_VECTORS", BESIDE_THE_CHECKOUT))
    if not folder.is_dir():
        pytest.fail(f"there are no vectors at {folder}: set UMEC_VECTORS, or leave them out with -m 'not vectors'")
    return folder
