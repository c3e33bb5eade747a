"""Why a node does not get other keys; beside those of the pure checks (`umec_attest.rotation`).

AttestError
├── RotationDone              rotation-done              the node has these keys already: nothing is left to do
├── RotationNotStanding       rotation-not-standing      only a node that stands may rotate
├── RotationUnknown           rotation-unknown           not our word, or for another node or other keys
├── RotationExpired           rotation-expired           too late
├── RotationSecretMismatch    rotation-secret-mismatch   the credential was not opened
└── RotationSuperseded        rotation-superseded        meanwhile the node has other keys or another generation
"""

from umec_attest.errors import AttestError
from umec_core.errors import Kind

__all__ = [
    "RotationDone",
    "RotationExpired",
    "RotationNotStanding",
    "RotationSecretMismatch",
    "RotationSuperseded",
    "RotationUnknown",
]


class RotationDone(AttestError):
    """The node has these keys already: nothing is left to do."""

    code = "rotation-done"
    kind = Kind.CONFLICT


class RotationNotStanding(AttestError):
    """Only a node that stands may rotate."""

    code = "rotation-not-standing"
    kind = Kind.FORBIDDEN


class RotationUnknown(AttestError):
    """Not our word, or for another node or other keys."""

    code = "rotation-unknown"


class RotationExpired(AttestError):
    """Too late."""

    code = "rotation-expired"


class RotationSecretMismatch(AttestError):
    """The credential was not opened."""

    code = "rotation-secret-mismatch"
    kind = Kind.FORBIDDEN


class RotationSuperseded(AttestError):
    """Meanwhile the node has other keys or another generation."""

    code = "rotation-superseded"
    kind = Kind.CONFLICT
