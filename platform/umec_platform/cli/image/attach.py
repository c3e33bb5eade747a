"""`umec image sign|attach|tree`: what refers to an image."""

import asyncio
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umec_platform.cli.files import read_file, read_object
from umec_platform.cli.image.build import REPORT
from umec_platform.cli.image.common import (
    PULL,
    PUSH,
    AsJson,
    CredentialFile,
    Image,
    emit_digest,
    look_up,
    registry_url,
    run,
)
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient
    from umec_images.oci.manifest import Descriptor

__all__ = ["attach", "sign", "tree"]


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
        repository, digest = await look_up(registry, image)
        site = client.credential
        identity = await client.token("sigstore", ())
        config = await client.send("GET", f"{registry_url(image)}/sigstore/client_trust_config.json")
        builder = f"{site.issuer}/identity/v1/clients/{site.client_id}"
        statement = provenance(
            repository=repository, digest=digest, builder=builder, report=report, now=system_clock().astimezone(UTC)
        )
        bundle = await asyncio.to_thread(
            sign_statement, statement, trust_config=config.text, identity_token=identity.text, ca=site.ca
        )
        return digest, await registry.attach(repository, digest, bundle)

    digest, attached = run(credential, image, PUSH, attach)
    human = f"{digest} is signed; the bundle is {attached}"
    emit({"digest": digest, "bundle": attached}, as_json=as_json, human=human)


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
        repository, digest = await look_up(registry, image)
        return await registry.attach(repository, digest, content, artifact_type)

    emit_digest(image, run(credential, image, PUSH, send), as_json=as_json)


@refusals
def tree(image: Image, credential: CredentialFile, as_json: AsJson = False) -> None:
    """Show an image and what is attached to it."""

    async def read(registry: "RegistryClient", _client: "OAuthClient") -> tuple[str, list["Descriptor"]]:
        repository, digest = await look_up(registry, image)
        return digest, await registry.referrers(repository, digest)

    digest, found = run(credential, image, PULL, read)
    lines = [f"└── {each.artifact_type}  {each.digest}" for each in found]
    referrers = [each.to_json() for each in found]
    emit({"digest": digest, "referrers": referrers}, as_json=as_json, human="\n".join([digest, *lines]))
