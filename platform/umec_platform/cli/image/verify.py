"""`umec image verify|verify-bundle`: who signed what, and when."""

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.files import read_file
from umec_platform.cli.image.common import PULL, AsJson, CredentialFile, Image, look_up, registry_url, run
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient
    from umec_images.verify import Identity

__all__ = ["verify", "verify_bundle"]


@refusals
def verify(
    image: Image,
    credential: CredentialFile,
    identity: Annotated[str, typer.Option(help="Who must have signed: a client of the site, or a URI.")],
    issuer: Annotated[str | None, typer.Option(help="Who vouches for the identity; the site's own by default.")] = None,
    trusted_root: Annotated[
        Path | None, typer.Option(help="trusted_root.json; without it, the one that the registry states.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify that somebody signed provenance for an image: every signature, proof and time, against a trusted root."""
    from umec_core.clock import system_clock
    from umec_images.promotion.evidence import fetch_attached, prove
    from umec_images.verify import BundleVerifier, Identity

    async def check(registry: "RegistryClient", client: "OAuthClient") -> dict[str, Any]:
        site = client.credential
        uri = identity if ":" in identity else f"{site.issuer}/identity/v1/clients/{identity}"
        expected = Identity(uri, site.issuer if issuer is None else issuer)
        repository, digest = await look_up(registry, image)
        if trusted_root is None:
            root = (await client.send("GET", f"{registry_url(image)}/sigstore/trusted_root.json")).content
        else:
            root = read_file(trusted_root)
        attached = await fetch_attached(registry, repository, digest)
        proof = prove(attached, BundleVerifier(root), expected, system_clock())
        signed_at = proof.signed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"digest": digest, "signer": proof.signer.subject, "issuer": proof.signer.issuer, "signed_at": signed_at}

    found = run(credential, image, PULL, check)
    human = f"{found['digest']} was signed by {found['signer']} at {found['signed_at']}"
    emit(found, as_json=as_json, human=human)


@refusals
def verify_bundle(
    artifact: Annotated[str, typer.Argument(help="A file, or sha256:DIGEST.")],
    bundle: Annotated[Path, typer.Option(help="The Sigstore bundle.")],
    trusted_root: Annotated[Path, typer.Option(help="trusted_root.json of the authority that is believed.")],
    certificate_identity: Annotated[str | None, typer.Option(help="The subject that must have signed.")] = None,
    certificate_oidc_issuer: Annotated[str | None, typer.Option(help="Who vouches for that subject.")] = None,
    key: Annotated[Path | None, typer.Option(help="Instead of an identity: the public key (PEM).")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle offline against a file or a digest."""
    from umec_core.clock import system_clock
    from umec_images.oci.reference import digest_of
    from umec_images.verify import BundleVerifier

    expected = _expected(certificate_identity, certificate_oidc_issuer, key)
    digest = artifact if artifact.startswith("sha256:") else digest_of(read_file(Path(artifact)))
    verifier = BundleVerifier(read_file(trusted_root))
    found = verifier.verify(read_file(bundle), digest=digest, identity=expected, now=system_clock())
    signer = None if found.signer is None else found.signer.subject
    emit({"digest": digest, "signer": signer, "bundle_id": found.bundle_id}, as_json=as_json)


def _expected(identity: str | None, issuer: str | None, key: Path | None) -> "Identity | EllipticCurvePublicKey":
    from umec_images.verify import Identity, load_key

    if key is not None and identity is None and issuer is None:
        return load_key(read_file(key))
    if key is None and identity is not None and issuer is not None:
        return Identity(identity, issuer)
    raise typer.BadParameter("give --certificate-identity and --certificate-oidc-issuer, or --key")
