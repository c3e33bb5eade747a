"""Verify Sigstore bundles offline: who signed which statement about which digest, and when."""

from umec_images.verify.bundle import BundleVerifier, VerifiedArtifact, VerifiedStatement
from umec_images.verify.identity import AnyIdentity, Identity, IdentityPattern, SignerIdentity
from umec_images.verify.managed import load_key
from umec_images.verify.trust import TrustRoot

__all__ = [
    "AnyIdentity",
    "BundleVerifier",
    "Identity",
    "IdentityPattern",
    "SignerIdentity",
    "TrustRoot",
    "VerifiedArtifact",
    "VerifiedStatement",
    "load_key",
]
