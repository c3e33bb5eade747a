"""Verify a Sigstore bundle offline against a trusted root; anything but success is a refusal.

The steps, after Sigstore's client specification, and who does each:
    1. the bundle is bounded and parses                                              (library)
    2. verified times: trusted time stamps, the log's integration time, none ahead   (`times`)
    3. only what the root trusted at all those times goes on                         (`trust`)
    4. certificate path, its SCT, its usages; log inclusion, checkpoint and promise; signature; the log entry is about
       this signature                                                                (library)
    5. the identity in the certificate is an expected one                            (`identity`)
    6. what was signed is what was asked for: a DSSE payload of the in-toto type whose subject has the digest, or the
       digest itself
A bundle is malleable: outer log index and log id are authenticated by nobody. What names it in audit and
deduplication is `bundle_id`, over signature, certificate, position in the tree and root of the tree.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore.hashes import Hashed
from sigstore.models import Bundle
from sigstore_models.bundle import v1 as bundle_v1
from sigstore_models.common.v1 import HashAlgorithm

from umec_core.dsse import IN_TOTO
from umec_core.errors import UmecError
from umec_images.errors import AuthorityExpired, DigestMismatch, SignatureInvalid, StatementInvalid
from umec_images.statements import Statement, parse_statement
from umec_images.verify import intoto, managed
from umec_images.verify.identity import Expected, SignerIdentity, signer_of
from umec_images.verify.library import IdentityLater
from umec_images.verify.times import verified_times
from umec_images.verify.trust import TrustRoot

__all__ = ["MAX_BUNDLE", "BundleVerifier", "VerifiedArtifact", "VerifiedStatement"]

MAX_BUNDLE: Final = 16 * 1024 * 1024
"""Bytes; a statement may hold the SBOM of a whole image."""
PREFIX: Final = "sha256:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """A statement that `signer` signed at `signed_at` (the latest verified time), made by `BundleVerifier` only."""

    statement: Statement
    signer: SignerIdentity | None
    """None where the key that verified is the identity."""
    signed_at: datetime
    bundle_id: str


@dataclass(frozen=True, slots=True)
class VerifiedArtifact:
    """A digest that `signer` signed at `signed_at`, made by `BundleVerifier` only."""

    digest: str
    signer: SignerIdentity | None
    signed_at: datetime
    bundle_id: str


class BundleVerifier:
    """Verifies bundles against one trusted root (the content of trusted_root.json), without any network."""

    __slots__ = ("root",)

    def __init__(self, trusted_root_json: bytes) -> None:
        """Parse the trusted root; raises TrustedRootInvalid."""
        self.root = TrustRoot(trusted_root_json)

    def verify_statement(
        self, bundle: bytes, *, digest: str, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedStatement:
        """Return the in-toto statement in a bundle that an expected identity (or a managed key) made about `digest`.

        `digest` is `sha256:<hex>`. Raises SignatureInvalid, AuthorityExpired, IdentityRefused,
        StatementInvalid or DigestMismatch.
        """
        wanted = _digest(digest)
        return _closed(lambda: self._statement(bundle, wanted, identity, now))

    def verify_artifact(
        self, bundle: bytes, *, digest: str, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedArtifact:
        """Return the proof that an expected identity (or a managed key) signed the bytes that have `digest`.

        `digest` is `sha256:<hex>`. Raises SignatureInvalid, AuthorityExpired or IdentityRefused.
        """
        wanted = _digest(digest)
        return _closed(lambda: self._artifact(bundle, wanted, identity, now))

    def verify(
        self, bundle: bytes, *, digest: str, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedStatement | VerifiedArtifact:
        """Verify a bundle of either kind: what `umec image verify-bundle` does. Raises like the two others."""
        parsed = _closed(lambda: _parse(bundle))
        check = self.verify_artifact if parsed.dsse_envelope is None else self.verify_statement
        return check(bundle, digest=digest, identity=identity, now=now)

    def verify_content(
        self, bundle: bytes, *, content: bytes, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedStatement | VerifiedArtifact:
        """Verify a bundle of either kind against the bytes themselves. Raises like `verify`."""
        digest = f"{PREFIX}{hashlib.sha256(content).hexdigest()}"
        return self.verify(bundle, digest=digest, identity=identity, now=now)

    def _statement(
        self, raw: bytes, wanted: bytes, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedStatement:
        bundle = _parse(raw)  # 1
        envelope = bundle.dsse_envelope
        if envelope is None or len(envelope.signatures) != 1:
            raise SignatureInvalid("the bundle holds no DSSE envelope with exactly one signature")
        signature = envelope.signatures[0].sig
        times = verified_times(bundle, signature, self.root.time_authorities, now)  # 2
        signer = None
        if isinstance(identity, EllipticCurvePublicKey):
            key = identity
            self._trusted(lambda root: managed.verify_envelope(bundle, envelope, key, root.logs(times)))  # 3, 4, 5
        else:
            verified = Bundle(bundle)
            if intoto.is_intoto(bundle):
                self._trusted(lambda root: intoto.verify(envelope, verified, root, times))  # 3, 4
            else:
                self._trusted(lambda root: root.verifier(times).verify_dsse(verified, IdentityLater()))  # 3, 4
            signer = signer_of(verified.signing_certificate)
            identity.require(signer)  # 5
        if envelope.payload_type != IN_TOTO:  # 6
            raise StatementInvalid(f"the payload type is {envelope.payload_type!r:.100}, expected {IN_TOTO}")
        statement = parse_statement(envelope.payload)
        if wanted.hex() not in {subject.digests.get("sha256") for subject in statement.subjects}:
            raise DigestMismatch(f"the signed statement is not about {PREFIX}{wanted.hex()}")
        return VerifiedStatement(statement, signer, times[-1], bundle_id(bundle, signature))

    def _artifact(
        self, raw: bytes, wanted: bytes, identity: Expected | EllipticCurvePublicKey, now: datetime
    ) -> VerifiedArtifact:
        bundle = _parse(raw)  # 1
        signed = bundle.message_signature
        if signed is None:
            raise SignatureInvalid("the bundle holds no signature of an artifact")
        signature = signed.signature
        times = verified_times(bundle, signature, self.root.time_authorities, now)  # 2
        signer = None
        if isinstance(identity, EllipticCurvePublicKey):
            key = identity
            self._trusted(
                lambda root: managed.verify_artifact(bundle, signed, wanted, key, root.logs(times))
            )  # 3, 4, 5, 6
        else:
            verified = Bundle(bundle)
            hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=wanted)
            self._trusted(
                lambda root: root.verifier(times).verify_artifact(hashed, verified, IdentityLater())
            )  # 3, 4, 6
            signer = signer_of(verified.signing_certificate)
            identity.require(signer)  # 5
        return VerifiedArtifact(f"{PREFIX}{wanted.hex()}", signer, times[-1], bundle_id(bundle, signature))

    def _trusted(self, check: Callable[[TrustRoot], object]) -> None:
        """Run a check; AuthorityExpired if it holds but for the times at which its authorities were trusted."""
        try:
            check(self.root)
        except Exception as refusal:
            if not _holds(lambda: check(self.root.whenever)):
                raise
            raise AuthorityExpired(
                "what signed, logged or certified this was not trusted any more, or not yet, when it was signed",
                advice="It has to be signed again, by an authority that the trusted root holds to be valid now.",
            ) from refusal


def _holds(check: Callable[[], object]) -> bool:
    try:
        check()
    except Exception:  # noqa: BLE001 - libraries raise most anything; the refusal is another's
        return False
    return True


def bundle_id(bundle: bundle_v1.Bundle, signature: bytes) -> str:
    """Return what names a bundle for audit and deduplication: SHA-256 (hex) over what is authenticated in it."""
    material = bundle.verification_material
    certificate = (
        b"" if material.public_key is not None else Bundle(bundle).signing_certificate.public_bytes(Encoding.DER)
    )
    proof = material.tlog_entries[0].inclusion_proof
    parts = (signature, certificate, struct.pack(">Q", proof.log_index), proof.root_hash)
    return hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in parts)).hexdigest()


def _parse(raw: bytes) -> bundle_v1.Bundle:
    if len(raw) > MAX_BUNDLE:
        raise SignatureInvalid(f"a bundle has at most {MAX_BUNDLE} bytes")
    return bundle_v1.Bundle.from_json(raw)


def _digest(digest: str) -> bytes:
    value = digest.removeprefix(PREFIX)
    if not digest.startswith(PREFIX) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise DigestMismatch("a digest is sha256: and 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _closed(check: Callable[[], T]) -> T:
    """Run a check so that whatever escapes is a refusal: mutated bundles make the libraries raise most anything."""
    try:
        return check()
    except UmecError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise SignatureInvalid(f"the bundle does not verify: {type(error).__name__}: {str(error)[:500]}") from error
