"""Fixtures for pytest, there for whoever has installed `umec[testing]`: software TPMs, nodes and boots.

| fixture             | what                                                                                     |
|---------------------|------------------------------------------------------------------------------------------|
| `tpm_authority`     | who issues certificates to the EKs of all software TPMs of the session                   |
| `software_tpm`      | a software TPM of its own for one test, just manufactured and switched on                |
| `make_software_tpm` | makes more of them                                                                       |
| `software_node`     | a node with keys in `software_tpm`: enrolment, quotes and evidence as wire bytes         |
| `node_image`        | the folder of a small node image                                                         |
| `boot_node`         | switches `software_tpm` off and on, measures an image or a recipe, returns the boot log  |

Nothing is imported before it is asked for. `umec_attest.testing.adversary` has the moves of an adversary.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from umec_attest.testing.authority import EndorsementAuthority
    from umec_attest.testing.eventlog import Measurement
    from umec_attest.testing.image import Tamper
    from umec_attest.testing.node import SoftwareNode
    from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["boot_node", "make_software_tpm", "node_image", "software_node", "software_tpm", "tpm_authority"]


@pytest.fixture(scope="session")
def tpm_authority(tmp_path_factory: pytest.TempPathFactory) -> "EndorsementAuthority":
    """The authority whose root a verifier pins: `root_pem`, `root`, `chain`."""
    from umec_attest.testing.authority import EndorsementAuthority  # noqa: PLC0415 - see above

    return EndorsementAuthority.create(tmp_path_factory.mktemp("tpm-authority"))


@pytest.fixture
def make_software_tpm(tpm_authority: "EndorsementAuthority") -> Iterator[Callable[[], "SoftwareTpm"]]:
    """A function that makes a running software TPM with an EK certificate; all go away with the test."""
    from umec_attest.testing.swtpm import SoftwareTpm  # noqa: PLC0415 - see above

    with ExitStack() as stack:
        yield lambda: stack.enter_context(SoftwareTpm(authority=tpm_authority))


@pytest.fixture
def software_tpm(make_software_tpm: Callable[[], "SoftwareTpm"]) -> "SoftwareTpm":
    """A running software TPM of its own for one test."""
    return make_software_tpm()


@pytest.fixture
def software_node(software_tpm: "SoftwareTpm") -> Iterator["SoftwareNode"]:
    """A node with keys in the software TPM of this test."""
    from umec_attest.testing.node import SoftwareNode  # noqa: PLC0415 - see above

    with SoftwareNode(software_tpm) as node:
        yield node


@pytest.fixture
def node_image(tmp_path: Path) -> Path:
    """The folder of a small, valid node image."""
    from umec_attest.testing.image import make_image  # noqa: PLC0415 - see above

    return make_image(tmp_path / "node-image")


@pytest.fixture
def boot_node(software_tpm: "SoftwareTpm") -> Callable[..., bytes]:
    """A function that boots the node of this test: `boot_node(image, tamper=None)` or `boot_node(recipe)`.

    It returns the boot log. A recipe is a list of `Measurement`, such as `event(4, EventType.EFI_ACTION, b"…")`.
    """
    from umec_attest.testing.firmware import boot, measure  # noqa: PLC0415 - see above

    def booted(what: "Path | Iterable[Measurement]", *, tamper: "Tamper | None" = None) -> bytes:
        software_tpm.power_cycle()
        if isinstance(what, Path):
            return boot(software_tpm, what, tamper=tamper)
        return measure(software_tpm, what)

    return booted
