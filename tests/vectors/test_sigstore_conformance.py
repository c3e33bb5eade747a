"""All cases of the Sigstore client conformance suite, each by path and by digest (140 runs)."""

import hashlib
from datetime import UTC, datetime
from importlib.resources import files

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.errors import UmecError
from umec_images.errors import SignatureInvalid
from umec_images.verify import BundleVerifier, Identity, load_key

pytestmark = pytest.mark.vectors

WORKFLOW = (
    "sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon"
)
SUBJECT = f"https://github.com/{WORKFLOW}.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
CASES = 70
PUBLIC_GOOD = files("sigstore").joinpath("_store", "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev", "trusted_root.json")


def text(folder, name, default):
    return (folder / name).read_text().strip() if (folder / name).exists() else default


def outcome(folder, *, by_digest):
    """Say how a case ends: "ok", or the code of the refusal."""
    artifact = folder / "artifact"
    content = (artifact if artifact.exists() else folder.parent / "a.txt").read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    own = folder / "trusted_root.json"
    key = folder / "key.pub"
    bundle = (folder / "bundle.sigstore.json").read_bytes()
    try:
        identity = (
            load_key(key.read_bytes())
            if key.exists()
            else Identity(text(folder, "identity", SUBJECT), text(folder, "issuer", ISSUER))
        )
        verifier = BundleVerifier(own.read_bytes() if own.exists() else PUBLIC_GOOD.read_bytes())
        if by_digest:
            verifier.verify(bundle, digest=digest, identity=identity, now=NOW)
        else:
            verifier.verify_content(bundle, content=content, identity=identity, now=NOW)
    except UmecError as refusal:
        return f"{refusal.code}: {refusal.detail}"
    return "ok"


@pytest.mark.parametrize("by_digest", [False, True], ids=["path", "digest"])
def test_every_case_ends_as_its_name_says(vectors, by_digest):
    folders = sorted(folder for folder in (vectors / "sigstore" / "bundle-verify").iterdir() if folder.is_dir())
    assert len(folders) >= CASES
    ended = {folder.name: outcome(folder, by_digest=by_digest) for folder in folders}
    wrong = {name: end for name, end in ended.items() if (end == "ok") is name.endswith("_fail")}
    assert wrong == {}


@pytest.mark.parametrize("name", ["managed-key-happy-path", "managed-key-and-trusted-root"])
def test_a_managed_key_is_exactly_that_key(vectors, name):
    folder = vectors / "sigstore" / "bundle-verify" / name
    own = folder / "trusted_root.json"
    verifier = BundleVerifier(own.read_bytes() if own.exists() else PUBLIC_GOOD.read_bytes())
    bundle, content = (folder / "bundle.sigstore.json").read_bytes(), (folder.parent / "a.txt").read_bytes()
    other, key = ec.generate_private_key(ec.SECP256R1()).public_key(), load_key((folder / "key.pub").read_bytes())
    with pytest.raises(SignatureInvalid) as refusal:
        verifier.verify_content(bundle, content=content, identity=other, now=NOW)
    assert refusal.value.detail == "the signature was not made by the expected key"
    with pytest.raises(SignatureInvalid):
        verifier.verify_content(bundle, content=b"other", identity=key, now=NOW)
    assert verifier.verify_content(bundle, content=content, identity=key, now=NOW).signer is None
