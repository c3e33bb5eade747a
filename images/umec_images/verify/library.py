"""The two steps of sigstore-python that it offers only as a part of something larger; its private names stay in here.

The conformance vectors and the tests of managed keys and in-toto entries fail if a release changes them.
"""

from datetime import datetime

from cryptography.x509 import Certificate
from sigstore._internal.trust import KeyringPurpose
from sigstore.models import Bundle, TransparencyLogEntry, TrustedRoot
from sigstore.verify import Verifier

from umec_images.errors import SignatureInvalid

__all__ = ["IdentityLater", "verify_certificate", "verify_log_entry"]


class IdentityLater:
    """The policy that we give to the library, which accepts any identity: the caller requires the expected one itself.

    It does so in a step of its own, to tell a foreign identity from a bad signature.
    """

    def verify(self, cert: Certificate) -> None:
        """Accept."""


def verify_log_entry(entry: TransparencyLogEntry, root: TrustedRoot) -> None:
    """Return if inclusion proof, checkpoint and (where there is one) promise of a log entry are the log's."""
    entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))  # noqa: SLF001 - see the module's docstring


def verify_certificate(verifier: Verifier, bundle: Bundle, times: tuple[datetime, ...]) -> None:
    """Return if the certificate of a bundle is good by path, SCT, usages and log entry, at all these times."""
    verifier._verify_common_signing_cert(bundle, IdentityLater())  # noqa: SLF001 - see the module's docstring
    certificate = bundle.signing_certificate
    if not all(certificate.not_valid_before_utc <= time <= certificate.not_valid_after_utc for time in times):
        raise SignatureInvalid("the signing certificate was not valid when this was signed")
