"""What the commands about images share: their options, and a connection to the registry that an image names."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from umec_platform.cli.output import emit

if TYPE_CHECKING:
    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient

__all__ = ["PULL", "PUSH", "AsJson", "CredentialFile", "Image", "emit_digest", "look_up", "registry_url", "run"]

T = TypeVar("T")

PULL = ("images:pull",)
PUSH = ("images:pull", "images:push")

CredentialFile = Annotated[
    Path, typer.Option("--credential", envvar="UMEC_CREDENTIAL", help="The client's credential file.")
]
Image = Annotated[str, typer.Argument(help="HOST:PORT/TENANT/NAME, with :TAG or @sha256:DIGEST.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def run(
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

    base = registry_url(image)

    async def go() -> T:
        async with connected(credential) as client:
            key = client.credential.key()

            async def authorize(method: str, url: str) -> dict[str, str]:
                token = (await client.token(f"{base}/", scopes)).text
                proof = make_proof(key, method, url, now=system_clock(), access_token=token)
                return {"Authorization": f"DPoP {token}", "DPoP": proof}

            return await work(RegistryClient(base, client.http, authorize), client)

    return asyncio.run(go())


def registry_url(image: str) -> str:
    """Return the URL of the registry that an image names; raises `ReferenceInvalid`."""
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import parse_reference

    host = parse_reference(image).host
    if host is None:
        raise ReferenceInvalid("the image must begin with its registry", advice="Write HOST:PORT/TENANT/NAME.")
    return f"https://{host}"


async def look_up(registry: "RegistryClient", image: str) -> tuple[str, str]:
    """Return repository and digest of an image; a tag is looked up."""
    from umec_images.oci.reference import parse_reference

    name = parse_reference(image)
    digest, _, _ = await registry.manifest(name.repository, name.digest or name.tag or "latest")
    return name.repository, digest


def emit_digest(image: str, digest: str, *, as_json: bool) -> None:
    """Print the exact name of an image."""
    emit({"digest": digest}, as_json=as_json, human=f"{image.partition('@')[0]}@{digest}")
