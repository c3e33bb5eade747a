"""Fixtures for pytest: `pytest_plugins = ["umec_attest.testing.plugin"]` or `-p umec_attest.testing.plugin`."""

from collections.abc import Iterator

import pytest

from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["software_node", "software_tpm"]


@pytest.fixture
def software_tpm() -> Iterator[SoftwareTpm]:
    """A running software TPM of its own for one test."""
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def software_node(software_tpm: SoftwareTpm) -> Iterator[SoftwareNode]:
    """A node with keys in a software TPM of its own."""
    with SoftwareNode(software_tpm) as node:
        yield node
