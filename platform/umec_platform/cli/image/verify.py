"""`umec image verify|verify-bundle`: who signed what, and when."""

from collections.abc import Mapping
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from umec_core.errors import Refused
from umec_platform.cli.files import read_file
from umec_platform.cli.image.common import PULL, AsJson, CredentialFile, Image, look_up, registry_url, run
from umec_platform.cli.image.explain import say
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient
    from umec_images.promotion.evidence import Attached
    from umec_images.verify import Identity

__all__ = ["WouldRefuse", "ask_admission", "require_admitted", "verify", "verify_bundle"]


class Purpose(StrEnum):
    """What an image is verified for."""

    SIGNATURE = "signature"
    ADMISSION = "admission"


class WouldRefuse(Refused):
    """The site would not start the image; `code` is its own."""

    def __init__(self, code: str, detail: str, advice: str | None) -> None:
        super().__init__(detail, advice=advice)
        self.code = code  # type: ignore[misc]  # the code of another process, known only now


@refusals
def verify(
    image: Image,
    credential: CredentialFile,
    identity: Annotated[str | None, typer.Option(help="Who must have signed: a client of the site, or a URI.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Who vouches for the identity; the site's own by default.")] = None,
    trusted_root: Annotated[
        Path | None, typer.Option(help="trusted_root.json; without it, the one that the registry states.")
    ] = None,
    purpose: Annotated[
        Purpose, typer.Option("--for", help="signature: verify here. admission: ask the site whether it would start.")
    ] = Purpose.SIGNATURE,
    tenant: Annotated[str | None, typer.Option(help="For admission: whose start; the repository's by default.")] = None,
    stage: Annotated[str, typer.Option(help="For admission: staging or production.")] = "production",
    explain: Annotated[bool, typer.Option("--explain", help="Show every check, also after the first refusal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify that somebody signed provenance for an image: every signature, proof and time, against a trusted root.

    With `--for admission`, ask the site whether the image would start now: nothing is started or changed.
    """
    if purpose is Purpose.ADMISSION:
        _verify_admission(image, credential, tenant, stage, explain=explain, as_json=as_json)
        return
    if identity is None:
        raise typer.BadParameter("say by --identity who must have signed, or ask --for admission")
    _verify_signature(image, credential, identity, issuer, trusted_root, explain=explain, as_json=as_json)


def _verify_signature(
    image: str,
    credential: Path,
    identity: str,
    issuer: str | None,
    trusted_root: Path | None,
    *,
    explain: bool,
    as_json: bool,
) -> None:
    from umec_core.clock import system_clock
    from umec_images.explain import explain_proof
    from umec_images.promotion.evidence import fetch_attached, prove
    from umec_images.verify import BundleVerifier, Identity

    async def fetch(registry: "RegistryClient", client: "OAuthClient") -> tuple["Attached", "Identity", bytes]:
        site = client.credential
        uri = identity if ":" in identity else f"{site.issuer}/identity/v1/clients/{identity}"
        expected = Identity(uri, site.issuer if issuer is None else issuer)
        repository, digest = await look_up(registry, image)
        if trusted_root is None:
            root = (await client.send("GET", f"{registry_url(image)}/sigstore/trusted_root.json")).content
        else:
            root = read_file(trusted_root)
        return await fetch_attached(registry, repository, digest), expected, root

    attached, expected, root = run(credential, image, PULL, fetch)
    verifier, now = BundleVerifier(root), system_clock()
    if explain:
        checks = [check.to_json() for check in explain_proof(attached, verifier, expected, now)[0]]
        refusal = next((check for check in checks if check["status"] == "refused"), None)
        told = None if refusal is None else {**refusal, "detail": refusal["found"]}
        say({"digest": attached.digest, "checks": checks}, told, as_json=as_json)
        return
    proof = prove(attached, verifier, expected, now)
    signed_at = proof.signed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {
        "digest": attached.digest,
        "signer": proof.signer.subject,
        "issuer": proof.signer.issuer,
        "signed_at": signed_at,
        "version": None if attached.version is None else attached.version.text,
    }
    emit(found, as_json=as_json, human=f"{attached.digest} was signed by {proof.signer.subject} at {signed_at}")


def _verify_admission(
    image: str, credential: Path, tenant: str | None, stage: str, *, explain: bool, as_json: bool
) -> None:
    async def ask(registry: "RegistryClient", client: "OAuthClient") -> dict[str, Any]:
        _, digest = await look_up(registry, image)
        return await ask_admission(client, image, digest, stage, tenant)

    said = run(credential, image, PULL, ask)
    if explain:
        say(said, None if said["admitted"] else said, as_json=as_json)
        return
    require_admitted(said)
    shown = {name: said[name] for name in ("digest", "tenant", "repository", "stage", "admitted")}
    emit(shown, as_json=as_json, human=f"{said['digest']} would start for {said['tenant']} in {said['stage']}")


async def ask_admission(
    client: "OAuthClient", image: str, digest: str, stage: str, tenant: str | None = None
) -> dict[str, Any]:
    """Return whether the site admits a digest in the repository that `image` names, with its reasons.

    The tenant is that of the repository unless it is said.
    """
    from umec_images.oci.reference import parse_reference, tenant_of

    repository, url = parse_reference(image).repository, registry_url(image)
    wanted = {"tenant": tenant or tenant_of(repository), "repository": repository, "digest": digest, "stage": stage}
    query = urlencode(wanted)
    answer = await client.request("GET", f"{url}/images/v1/admission?{query}", resource=f"{url}/", scopes=PULL)
    return dict(answer.json())


def require_admitted(said: Mapping[str, Any]) -> None:
    """Return if the site admits what it was asked about; raises `WouldRefuse`."""
    if not said["admitted"]:
        raise WouldRefuse(said["code"], said["detail"], said["advice"])


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
