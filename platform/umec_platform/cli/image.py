"""`umec image`: application images from their files to production."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from umec_platform.cli.files import read_file, read_object
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient
    from umec_images.oci.manifest import Descriptor
    from umec_images.verify import Identity

__all__ = ["app"]

app = typer.Typer()

T = TypeVar("T")

MAX_ATTACHMENT = 16 * 1024 * 1024
"""Bytes of an attachment that is shown or verified."""
REPORT = "umec-build.json"
"""The build report, beside the index of the layout."""
PULL = ("images:pull",)
PUSH = ("images:pull", "images:push")

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
Image = Annotated[str, typer.Argument(help="HOST:PORT/TENANT/NAME, with :TAG or @sha256:DIGEST.")]
Denied = Annotated[str, typer.Argument(help="sha256:DIGEST with --registry, or HOST:PORT/TENANT/NAME@sha256:DIGEST.")]
RegistryUrl = Annotated[
    str | None, typer.Option("--registry", envvar="UMEC_REGISTRY", help="The registry's URL, https://HOST:PORT.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@refusals
def build(
    source: Annotated[Path, typer.Argument(help="A description (image.toml), or the folder that holds one.")],
    out: Annotated[Path, typer.Option(help="The folder for the OCI image layout.")],
    tag: Annotated[str, typer.Option(help="The tag that the image will have.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Build an image from Debian packages and Python distributions of this machine, and from folders."""
    from umec_images.build import build_image, load_spec

    spec, base = load_spec(source)
    report = build_image(spec, base, out, tag=tag).to_json()
    (out / REPORT).write_text(json.dumps(report, sort_keys=True))
    lines = [f"{each['name']}: {each['files']} files, {each['size'] / 1e6:.1f} MB" for each in report["layers"]]
    human = "\n".join([*lines, f"{report['digest']} ({report['size'] / 1e6:.1f} MB) is in {out}"])
    emit(report, as_json=as_json, human=human)


@app.command()
@refusals
def push(
    layout: Annotated[Path, typer.Argument(help="The folder of an OCI image layout that holds one image.")],
    image: Image,
    credential: CredentialFile,
    as_json: AsJson = False,
) -> None:
    """Upload an image; a tag that exists already never moves."""
    from umec_images.oci.layout import Layout
    from umec_images.oci.reference import parse_reference

    opened, name = Layout(layout), parse_reference(image)
    found = opened.image()

    async def upload(registry: "RegistryClient", _client: "OAuthClient") -> str:
        for each in (found.manifest.config, *found.manifest.layers):
            await registry.push_blob(name.repository, opened.blob(each.digest))
        tag = name.tag or found.tag
        return await registry.push_manifest(name.repository, tag, found.content, found.manifest.media_type)

    digest = _run(credential, image, PUSH, upload)
    _emit_digest(image, digest, as_json=as_json)


@app.command()
@refusals
def sign(
    image: Image,
    credential: CredentialFile,
    layout: Annotated[Path | None, typer.Option(help="The layout that was pushed: its build report is signed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign provenance for an image as the builder whose credential this is, and attach it."""
    from umec_core.clock import system_clock
    from umec_images.build.signing import provenance, sign_statement

    report = None if layout is None else read_object(layout / REPORT)

    async def attach(registry: "RegistryClient", client: "OAuthClient") -> tuple[str, str]:
        repository, digest = await _digest(registry, image)
        site = client.credential
        identity = await client.token("sigstore", ())
        config = await client.send("GET", f"{_registry_url(image)}/sigstore/client_trust_config.json")
        builder = f"{site.issuer}/identity/v1/clients/{site.client_id}"
        statement = provenance(
            repository=repository, digest=digest, builder=builder, report=report, now=system_clock().astimezone(UTC)
        )
        bundle = await asyncio.to_thread(
            sign_statement, statement, trust_config=config.text, identity_token=identity.text, ca=site.ca
        )
        return digest, await registry.attach(repository, digest, bundle)

    digest, attached = _run(credential, image, PUSH, attach)
    human = f"{digest} is signed; the bundle is {attached}"
    emit({"digest": digest, "bundle": attached}, as_json=as_json, human=human)


@app.command()
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
        repository, digest = await _digest(registry, image)
        if trusted_root is None:
            root = (await client.send("GET", f"{_registry_url(image)}/sigstore/trusted_root.json")).content
        else:
            root = read_file(trusted_root)
        attached = await fetch_attached(registry, repository, digest)
        proof = prove(attached, BundleVerifier(root), expected, system_clock())
        signed_at = proof.signed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"digest": digest, "signer": proof.signer.subject, "issuer": proof.signer.issuer, "signed_at": signed_at}

    found = _run(credential, image, PULL, check)
    human = f"{found['digest']} was signed by {found['signer']} at {found['signed_at']}"
    emit(found, as_json=as_json, human=human)


@app.command("verify-bundle")
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


@app.command()
@refusals
def attach(
    image: Image,
    file: Annotated[Path, typer.Argument(help="What to attach.")],
    credential: CredentialFile,
    artifact_type: Annotated[
        str, typer.Option(help="Its media type.")
    ] = "application/vnd.dev.sigstore.bundle.v0.3+json",
    as_json: AsJson = False,
) -> None:
    """Attach a file (a bundle, an SBOM) to an image as a referrer."""
    content = read_file(file)

    async def send(registry: "RegistryClient", _client: "OAuthClient") -> str:
        repository, digest = await _digest(registry, image)
        return await registry.attach(repository, digest, content, artifact_type)

    _emit_digest(image, _run(credential, image, PUSH, send), as_json=as_json)


@app.command()
@refusals
def tree(image: Image, credential: CredentialFile, as_json: AsJson = False) -> None:
    """Show an image and what is attached to it."""

    async def read(registry: "RegistryClient", _client: "OAuthClient") -> tuple[str, list["Descriptor"]]:
        repository, digest = await _digest(registry, image)
        return digest, await registry.referrers(repository, digest)

    digest, found = _run(credential, image, PULL, read)
    lines = [f"└── {each.artifact_type}  {each.digest}" for each in found]
    referrers = [each.to_json() for each in found]
    emit({"digest": digest, "referrers": referrers}, as_json=as_json, human="\n".join([digest, *lines]))


@app.command()
@refusals
def promote(
    image: Image,
    credential: CredentialFile,
    stage: Annotated[str, typer.Option(help="staging or production.")],
    as_json: AsJson = False,
) -> None:
    """Let an image pass to a stage: the images service verifies it, asks its policies, and signs a summary."""

    async def ask(registry: "RegistryClient", client: "OAuthClient") -> dict[str, Any]:
        repository, digest = await _digest(registry, image)
        url = _registry_url(image)
        wanted = {"repository": repository, "digest": digest, "stage": stage}
        answer = await client.request(
            "POST", f"{url}/images/v1/promotions", resource=f"{url}/", scopes=("images:promote",), json=wanted
        )
        return {"digest": digest, "stage": stage, **answer.json()}

    made = _run(credential, image, PULL, ask)
    emit(made, as_json=as_json, human=f"{made['digest']} passed to {stage}; the summary is {made['vsa_digest']}")


@app.command()
@refusals
def deny(
    image: Denied,
    credential: CredentialFile,
    reason: Annotated[str, typer.Option(help="Why, in one line: the list and the audit log keep it.")],
    registry: RegistryUrl = None,
    as_json: AsJson = False,
) -> None:
    """Deny a digest: from now on it is neither promoted nor started, whoever signed and approved it."""
    base, digest = _denied(image, registry)
    changed = _denials(credential, base, "POST", "", json={"digest": digest, "reason": reason})
    emit(changed, as_json=as_json, human=f"{digest} is denied; the deny list has version {changed['version']}")


@app.command()
@refusals
def allow(image: Denied, credential: CredentialFile, registry: RegistryUrl = None, as_json: AsJson = False) -> None:
    """Lift the denial of a digest: what was promoted before may start again."""
    base, digest = _denied(image, registry)
    changed = _denials(credential, base, "DELETE", f"/{digest}")
    emit(changed, as_json=as_json, human=f"{digest} is not denied; the deny list has version {changed['version']}")


@app.command()
@refusals
def denials(
    credential: CredentialFile,
    registry: Annotated[str, typer.Option(envvar="UMEC_REGISTRY", help="The registry's URL, https://HOST:PORT.")],
    as_json: AsJson = False,
) -> None:
    """Show what is denied."""
    found = _denials(credential, registry.rstrip("/"), "GET", "")
    lines = [f"{each['digest']}  {each['denied_at']}  {each['actor']}: {each['reason']}" for each in found["denials"]]
    emit(found, as_json=as_json, human="\n".join([f"version {found['version']}", *lines]))


def _denied(image: str, registry: str | None) -> tuple[str, str]:
    """Return the registry's URL and the digest that is meant: a tag is none, what is denied must be exact."""
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import check_digest, parse_reference

    if not image.startswith("sha256:"):
        digest = parse_reference(image).digest
        if digest is None:
            raise ReferenceInvalid("this names no digest", advice="Write HOST:PORT/TENANT/NAME@sha256:DIGEST.")
        return _registry_url(image), digest
    if registry is None:
        raise ReferenceInvalid("the deny list is at the registry", advice="--registry https://HOST:PORT")
    return registry.rstrip("/"), check_digest(image)


def _denials(
    credential: Path, base: str, method: str, path: str, *, json: dict[str, str] | None = None
) -> dict[str, Any]:
    from umec_platform.cli.remote import connected

    async def ask() -> dict[str, Any]:
        async with connected(credential) as client:
            url = f"{base}/images/v1/denials{path}"
            answer = await client.request(method, url, resource=f"{base}/", scopes=("images:admin",), json=json)
            return dict(answer.json())

    return asyncio.run(ask())


def _run(
    credential: Path,
    image: str,
    scopes: tuple[str, ...],
    work: "Callable[[RegistryClient, OAuthClient], Awaitable[T]]",
) -> T:
    """Run `work` with clients of the registry that `image` names and of the site of the credential."""
    from umec_core.clock import system_clock
    from umec_core.dpop import make_proof
    from umec_images.oci.client import RegistryClient
    from umec_platform.cli.remote import connected

    base = _registry_url(image)

    async def go() -> T:
        async with connected(credential) as client:
            key = client.credential.key()

            async def authorize(method: str, url: str) -> dict[str, str]:
                token = (await client.token(f"{base}/", scopes)).text
                proof = make_proof(key, method, url, now=system_clock(), access_token=token)
                return {"Authorization": f"DPoP {token}", "DPoP": proof}

            return await work(RegistryClient(base, client.http, authorize), client)

    return asyncio.run(go())


def _registry_url(image: str) -> str:
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import parse_reference

    host = parse_reference(image).host
    if host is None:
        raise ReferenceInvalid("the image must begin with its registry", advice="Write HOST:PORT/TENANT/NAME.")
    return f"https://{host}"


async def _digest(registry: "RegistryClient", image: str) -> tuple[str, str]:
    """Return repository and digest of an image; a tag is looked up."""
    from umec_images.oci.reference import parse_reference

    name = parse_reference(image)
    digest, _, _ = await registry.manifest(name.repository, name.digest or name.tag or "latest")
    return name.repository, digest


def _expected(identity: str | None, issuer: str | None, key: Path | None) -> "Identity | EllipticCurvePublicKey":
    from umec_images.verify import Identity, load_key

    if key is not None and identity is None and issuer is None:
        return load_key(read_file(key))
    if key is None and identity is not None and issuer is not None:
        return Identity(identity, issuer)
    raise typer.BadParameter("give --certificate-identity and --certificate-oidc-issuer, or --key")


def _emit_digest(image: str, digest: str, *, as_json: bool) -> None:
    emit({"digest": digest}, as_json=as_json, human=f"{image.partition('@')[0]}@{digest}")
