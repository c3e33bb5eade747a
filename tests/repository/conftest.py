"""The repository as its files: what git knows, and where it is."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tracked(root) -> list[Path]:
    """Every file of the repository, and every new one that git would not ignore."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=root, capture_output=True, check=True, text=True)
    files = [root / name for name in listed.stdout.split("\0") if name]
    assert files
    return [file for file in files if file.is_file()]
