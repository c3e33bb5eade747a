"""The trusted root of a Sigstore instance, and what of it was valid when a signature was made.

TimeRange is a closed interval, and it binds all four: certificate authorities, logs, CT logs and time stamping
authorities. sigstore-python enforces its end for the last only. So a signature is verified against a root that holds
nothing but what was valid at its verified times. What was valid then stays good for what was signed then: rotation ends
an authority, not its signatures.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Final

from cryptography import x509
from pydantic import ValidationError
from sigstore.models import TrustedRoot
from sigstore_models.trustroot import v1

from umec_images.errors import SignatureInvalid, TrustedRootInvalid
from umec_images.verify.library import TimedVerifier

__all__ = ["MAX_ROOT", "TimeAuthority", "TrustRoot"]

MAX_ROOT: Final = 4 * 1024 * 1024
"""Bytes of a trusted root; the public good instance's has 10 KB."""
BEGINNING: Final = "1970-01-01T00:00:00Z"
CACHED_ROOTS: Final = 64
"""Distinct sets of valid keys, thus rotations within the life of the signatures that we meet."""


@dataclass(frozen=True, slots=True)
class TimeAuthority:
    """A time stamping authority: its chain from the signing certificate to the root, trusted from start to end."""

    chain: tuple[x509.Certificate, ...]
    start: datetime
    end: datetime | None

    def trusted_at(self, time: datetime) -> bool:
        """Say whether the closed interval of trust holds a time."""
        return self.start <= time and (self.end is None or time <= self.end)


class TrustRoot:
    """A trusted root: `digest` is the SHA-256 (hex) of the JSON it was made from."""

    def __init__(self, trusted_root_json: bytes) -> None:
        """Parse trusted_root.json; raises TrustedRootInvalid."""
        if len(trusted_root_json) > MAX_ROOT:
            raise TrustedRootInvalid(f"a trusted root has at most {MAX_ROOT} bytes")
        self.digest = hashlib.sha256(trusted_root_json).hexdigest()
        try:
            self._root = v1.TrustedRoot.from_json(trusted_root_json)
            self.time_authorities = tuple(_time_authority(each) for each in self._root.timestamp_authorities)
        except TrustedRootInvalid:
            raise
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise TrustedRootInvalid(f"the trusted root is malformed: {str(error)[:500]}") from error
        except Exception as error:  # the library's own errors have no common root that it documents
            raise TrustedRootInvalid(f"the trusted root is not usable: {type(error).__name__}: {error}") from error
        for log in (*self._root.tlogs, *self._root.ctlogs):
            if log.public_key.valid_for is None:
                raise TrustedRootInvalid("a log in the trusted root has no validFor: nobody could retire its key")
        self._at = lru_cache(CACHED_ROOTS)(self._restricted)

    @cached_property
    def whenever(self) -> "TrustRoot":
        """The same root as if all of it were trusted at all times: it tells why a bundle is refused, never whether."""
        root = json.loads(self._root.to_json())
        parts = (*root["certificateAuthorities"], *root["timestampAuthorities"])
        for part in (*parts, *(each["publicKey"] for each in (*root["tlogs"], *root["ctlogs"]))):
            part["validFor"] = {"start": BEGINNING}
        return TrustRoot(json.dumps(root).encode())

    def verifier(self, times: Sequence[datetime]) -> TimedVerifier:
        """Return a verifier that trusts what was valid at all these times; raises what the library does of nothing."""
        return self._at(self._kept(times)).at(times)

    def logs(self, times: Sequence[datetime]) -> TrustedRoot:
        """Return the root as of these times for a signature by a managed key, which needs the log only."""
        kept = self._kept(times)
        return TrustedRoot(self._root.model_copy(update={"tlogs": [self._root.tlogs[index] for index in kept[1]]}))

    def _kept(self, times: Sequence[datetime]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        if not times:
            raise SignatureInvalid("there is no verified time of signing")
        return (
            _valid([authority.valid_for for authority in self._root.certificate_authorities], times),
            _valid([log.public_key.valid_for for log in self._root.tlogs], times),
            _valid([log.public_key.valid_for for log in self._root.ctlogs], times),
        )

    def _restricted(self, kept: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> TimedVerifier:
        authorities, logs, ct_logs = kept
        update = {
            "certificate_authorities": [self._root.certificate_authorities[index] for index in authorities],
            "tlogs": [self._root.tlogs[index] for index in logs],
            "ctlogs": [self._root.ctlogs[index] for index in ct_logs],
        }
        return TimedVerifier(trusted_root=TrustedRoot(self._root.model_copy(update=update)))


def _valid(periods: Sequence[Any], times: Sequence[datetime]) -> tuple[int, ...]:
    return tuple(
        index
        for index, period in enumerate(periods)
        if all(period.start <= time and (period.end is None or time <= period.end) for time in times)
    )


def _time_authority(authority: v1.CertificateAuthority) -> TimeAuthority:
    chain = tuple(x509.load_der_x509_certificate(each.raw_bytes) for each in authority.cert_chain.certificates)
    if len(chain) < 2:
        raise TrustedRootInvalid("a time stamping authority needs its signing certificate and its root")
    return TimeAuthority(chain, authority.valid_for.start, authority.valid_for.end)
