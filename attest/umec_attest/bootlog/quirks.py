"""What real firmware gets wrong, and nobody has to forge: findings that a policy may excuse for a model, by name.

Each has been seen in logs of machines that nobody attacked. None is tolerated silently: it is a finding, which
contradicts unless whoever signs the reference set excused it for that very firmware. Excusing one takes the finding
away and nothing else: what the log does not prove stays unknown.
"""

from types import MappingProxyType
from typing import Final

__all__ = ["EXCUSABLE", "EXCUSABLE_IN_FORM"]

EXCUSABLE: Final = MappingProxyType(
    {
        "boot-application-early": "starts an application in PCR 4 before it says that it calls one",
        "crtm-version-invalid": "measures no S-CRTM version, several, or one that its digest is not of",
        "exit-boot-services-missing": "measures the end of boot services into PCR 5 and does not log it",
        "secure-boot-variable-empty": "measures SecureBoot with no content where it is off, so the log does not say so",
        "spec-id-vendor-info-size": "counts vendorInfo neither in the Spec ID event's size nor out of the log",
    }
)
"""Finding id -> what firmware with this quirk does."""

EXCUSABLE_IN_FORM: Final = frozenset({"spec-id-vendor-info-size"})
"""Those without which a log cannot be read at all: `parse_boot_log` refuses them unless it is told to allow them."""
