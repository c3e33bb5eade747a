"""Path validation (RFC 5280, 6) from a certificate of a TPM or a device to a configured root.

1  the certificate is valid now, is no authority, serves the purpose, and has no critical extension that we do not know
2  an issuer of that name signed it with SHA-2 and a strong key, and each issuer likewise up to a configured root
3  each issuer is valid now, an authority that may sign certificates for this purpose, within its path length
4  no name below an authority breaks its constraints
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from umec_attest.certificates.certificate import Certificate
from umec_attest.certificates.constraints import check_constraints
from umec_attest.errors import AttestError

__all__ = ["Profile", "TrustStore", "extension", "sort_bundle", "verify_path"]

_Wanted = TypeVar("_Wanted", bound=x509.ExtensionType)

_MAX_PATH: Final = 6
"""Authorities above a certificate. Vendors have one to four."""
_MAX_VERIFICATIONS: Final = 16
"""Signatures that one search for a path may verify: a stranger sends the chain, and P-384 takes a millisecond."""

_ANY_PURPOSE: Final = ObjectIdentifier("2.5.29.37.0")
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
"""Critical extensions that are checked here or by the profile; policies restrict nothing where any policy will do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a path is wanted for, and the errors that say why there is none."""

    purpose: ObjectIdentifier | None
    """The extended key usage that the certificate must have, and its authorities may have; None: any, or none."""
    invalid: type[AttestError]
    expired: type[AttestError]
    path: type[AttestError]


@dataclass(frozen=True, slots=True)
class TrustStore:
    """What an operator configured: `anchors` end a path, `intermediates` only help to build one."""

    anchors: tuple[Certificate, ...]
    intermediates: tuple[Certificate, ...] = ()


def sort_bundle(certificates: Sequence[Certificate], *, anchors: Sequence[Certificate] = ()) -> TrustStore:
    """Sort a bundle: certificates that name themselves as issuer are anchors, as are all of `anchors`.

    The others are intermediates. Nothing is taken for valid: dates, CA bit and the like are checked with each path.
    """
    roots = [certificate for certificate in certificates if certificate.issuer == certificate.subject]
    others = [certificate for certificate in certificates if certificate.issuer != certificate.subject]
    return TrustStore(tuple(dict.fromkeys([*anchors, *roots])), tuple(dict.fromkeys(others)))


def verify_path(
    leaf: Certificate, chain: Sequence[Certificate], store: TrustStore, *, profile: Profile, now: datetime
) -> tuple[Certificate, ...]:
    """Return the path from `leaf` to an anchor of `store`, both included; `chain` came with the leaf, in any order.

    Errors: those of `profile`. Where several paths fail, the error is that of one that got to an authority, and
    `profile.path` if there is no issuer at all.
    """
    _check_end_entity(leaf, profile, now)  # 1
    return _Search((*store.intermediates, *chain), store.anchors, profile, now).climb((leaf,))


def extension(certificate: Certificate, kind: type[_Wanted]) -> _Wanted | None:
    """Return the value of an extension, or None if the certificate does not have it."""
    try:
        return certificate.fields.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


class _Search:
    """A search of bounded depth and work."""

    def __init__(
        self, between: Sequence[Certificate], anchors: Sequence[Certificate], profile: Profile, now: datetime
    ) -> None:
        self._between = between
        self._anchors = anchors
        self._profile = profile
        self._now = now
        self._left = _MAX_VERIFICATIONS
        self._failed: AttestError | None = None

    def climb(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
        """Return a good path that begins with `path`; raises what failed."""
        found = self._complete(path)
        if found is not None:
            return found
        if self._failed is not None:
            raise self._failed
        raise self._profile.path(
            f"no configured root vouches for {path[0].issuer}",
            advice="Add the root of its maker, after checking where it comes from, or send the intermediates.",
        )

    def _complete(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        for anchor in self._issuers(path, self._anchors):
            if self._may_issue(anchor, path):
                return (*path, anchor)
        if len(path) >= _MAX_PATH:
            return None
        for issuer in self._issuers(path, self._between):
            if self._may_issue(issuer, path):
                found = self._complete((*path, issuer))
                if found is not None:
                    return found
        return None

    def _issuers(self, path: tuple[Certificate, ...], candidates: Sequence[Certificate]) -> Iterator[Certificate]:
        """2. Yield those that have the issuer's name and made the signature."""
        for candidate in candidates:
            if candidate.subject != path[-1].issuer or candidate in path:
                continue
            if self._left == 0:
                return
            self._left -= 1
            try:
                path[-1].verify_signed_by(candidate)
            except InvalidSignature:
                continue
            yield candidate

    def _may_issue(self, authority: Certificate, path: tuple[Certificate, ...]) -> bool:
        try:
            _check_authority(authority, path, self._profile, self._now)
        except AttestError as error:
            self._failed = error
            return False
        return True


def _check_end_entity(leaf: Certificate, profile: Profile, now: datetime) -> None:
    """1. Neither an authority nor for another purpose."""
    _check_each(leaf, profile, now)
    constraints = extension(leaf, x509.BasicConstraints)
    if constraints is None or constraints.ca:
        raise profile.invalid("the certificate does not say that it is no authority (basic constraints)")
    purposes = extension(leaf, x509.ExtendedKeyUsage) or ()
    if profile.purpose is not None and profile.purpose not in purposes:
        raise profile.invalid(f"the certificate is for another purpose than {profile.purpose.dotted_string}")


def _check_each(certificate: Certificate, profile: Profile, now: datetime) -> None:
    """1, 3. Dates and critical extensions, of every certificate."""
    start, end = certificate.fields.not_valid_before_utc, certificate.fields.not_valid_after_utc
    if not start <= now <= end:
        raise profile.expired(f"{certificate.subject} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    unknown = [e.oid.dotted_string for e in certificate.fields.extensions if e.critical and e.oid not in _UNDERSTOOD]
    if unknown:
        raise profile.invalid(f"critical extensions that we do not understand: {', '.join(unknown)}")


def _check_authority(authority: Certificate, path: tuple[Certificate, ...], profile: Profile, now: datetime) -> None:
    """3, 4. `path` are the certificates below; all but the first are authorities, too."""
    _check_each(authority, profile, now)
    constraints = extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise profile.path(f"{authority.subject} is no certificate authority")
    if constraints.path_length is not None and len(path) - 1 > constraints.path_length:
        raise profile.path(f"the path below {authority.subject} is too long")
    usage = extension(authority, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise profile.path(f"{authority.subject} may not sign certificates")
    purposes = extension(authority, x509.ExtendedKeyUsage)
    limited = purposes is not None and profile.purpose is not None
    if limited and not {profile.purpose, _ANY_PURPOSE}.intersection(purposes or ()):
        raise profile.path(f"{authority.subject} may not sign certificates for this purpose")
    names = extension(authority, x509.NameConstraints)
    if names is not None:
        _check_names(names, path, profile)


def _check_names(names: x509.NameConstraints, path: tuple[Certificate, ...], profile: Profile) -> None:
    try:
        check_constraints(names, path)
    except ValueError as error:  # broken, or so malformed that nobody can tell
        raise profile.path(str(error)) from error
