"""What of sigstore-python we take apart; its private names stay in here.

The conformance vectors and the tests of retired keys fail if a release changes them.
"""

import copy
from collections.abc import Sequence
from datetime import datetime

from cryptography.x509 import Certificate
from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
from sigstore._internal.trust import KeyringPurpose
from sigstore.models import Bundle, TransparencyLogEntry, TrustedRoot
from sigstore.verify import Verifier

__all__ = ["IdentityLater", "TimedVerifier", "verify_log_entry"]


class IdentityLater:
    """The policy that we give to the library, which accepts any identity: the caller requires the expected one itself.

    It does so in a step of its own, to tell a foreign identity from a bad signature.
    """

    def verify(self, cert: Certificate) -> None:
        """Accept."""


class TimedVerifier(Verifier):
    """The library's verifier for signatures whose times were verified before: it does not verify them once more.

    The library would read the end of a time stamping authority as an exclusive bound, and take no integration time from
    entries of the kind `intoto`.
    """

    _times: tuple[datetime, ...] = ()

    def at(self, times: Sequence[datetime]) -> "TimedVerifier":
        """Return a verifier for a signature made at these times."""
        timed = copy.copy(self)
        timed._times = tuple(times)  # noqa: SLF001 - its own copy
        return timed

    def verify_certificate(self, bundle: Bundle) -> None:
        """Return if the certificate of a bundle is good by path, SCT, usages and log entry, at all its times."""
        self._verify_common_signing_cert(bundle, IdentityLater())

    def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:  # noqa: ARG002 - the library's name
        return [TimestampVerificationResult(TimestampSource.TIMESTAMP_AUTHORITY, time) for time in self._times]


def verify_log_entry(entry: TransparencyLogEntry, root: TrustedRoot) -> None:
    """Return if inclusion proof, checkpoint and (where there is one) promise of a log entry are the log's."""
    entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))  # noqa: SLF001 - see the module's docstring
