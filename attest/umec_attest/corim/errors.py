"""Why a CoRIM is not read.

CorimRefused                      corim-refused
├── CorimInvalid                  corim-invalid                what is no CoRIM, or says two things at once
├── CorimUnsupported              corim-unsupported            a part that would change what the values mean
└── CorimProfileUnsupported       corim-profile-unsupported    a profile that we do not know
"""

from umec_attest.errors import AttestError
from umec_core.errors import Kind

__all__ = ["CorimInvalid", "CorimProfileUnsupported", "CorimRefused", "CorimUnsupported"]


class CorimRefused(AttestError):
    """A CoRIM that is not read."""

    code = "corim-refused"


class CorimInvalid(CorimRefused):
    """Bytes that are no CoRIM, or one that says two things at once."""

    code = "corim-invalid"
    kind = Kind.INVALID


class CorimUnsupported(CorimRefused):
    """A part that is not read, and without which the values would mean something else."""

    code = "corim-unsupported"


class CorimProfileUnsupported(CorimRefused):
    """A profile that is not known: it may give every part another meaning."""

    code = "corim-profile-unsupported"
