"""What is attached to an image, one by one, and who built it."""

from datetime import UTC, datetime

from umec_images.explain.checks import Check, Status, attempt
from umec_images.promotion.evidence import Attached, Attachment, Proof, Said, prove, verify_attachment
from umec_images.statements import PROVENANCE
from umec_images.verify import BundleVerifier
from umec_images.verify.identity import Expected

__all__ = ["explain_proof", "moment"]


def moment(time: datetime) -> str:
    """Return a time as people read it, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def explain_proof(
    attached: Attached, verifier: BundleVerifier, expected: Expected, now: datetime
) -> tuple[list[Check], Proof | None]:
    """Return the checks of `prove` on every bundle and as a whole, with its result if it has one."""
    version = "no semantic version" if attached.version is None else f"version {attached.version}"
    manifest = Check("manifest", Status.HOLDS, f"bytes with the digest {attached.digest}", f"they have it; {version}")

    def said(bundle: Attachment) -> Check:
        check, _ = attempt(
            f"bundle {bundle.sha256[:12]}",
            f"an expected builder's statement about {attached.digest}, logged and stamped by who was trusted then",
            lambda: verify_attachment(bundle, attached.digest, verifier, expected, now),
            _said,
            otherwise=Status.PASSED_OVER,
        )
        return check

    ended = attempt(
        "provenance",
        "at least one of the bundles is provenance by an expected builder",
        lambda: prove(attached, verifier, expected, now),
        _built,
    )
    return [manifest, *map(said, attached.bundles), ended[0]], ended[1]


def _built(proof: Proof) -> str:
    return f"built by {proof.signer.subject}, signed at {moment(proof.signed_at)}"


def _said(said: Said) -> str:
    what = "provenance" if said.kind == PROVENANCE else said.kind
    return f"{what} by {said.signer.subject}, signed at {moment(said.signed_at)}"
