"""`umec image deny|allow|denials|minimum`: what operators let nobody start, whoever signed and approved it."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_platform.cli.image.common import AsJson, CredentialFile, registry_url
from umec_platform.cli.output import emit, refusals

__all__ = ["allow", "denials", "deny", "minimum"]

Denied = Annotated[str, typer.Argument(help="sha256:DIGEST with --registry, or HOST:PORT/TENANT/NAME@sha256:DIGEST.")]
RegistryUrl = Annotated[
    str | None, typer.Option("--registry", envvar="UMEC_REGISTRY", help="The registry's URL, https://HOST:PORT.")
]


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
    changed = _ask(credential, base, "POST", "denials", json={"digest": digest, "reason": reason})
    emit(changed, as_json=as_json, human=f"{digest} is denied; the deny list has version {changed['version']}")


@refusals
def allow(image: Denied, credential: CredentialFile, registry: RegistryUrl = None, as_json: AsJson = False) -> None:
    """Lift the denial of a digest: what was promoted before may start again."""
    base, digest = _denied(image, registry)
    changed = _ask(credential, base, "DELETE", f"denials/{digest}")
    emit(changed, as_json=as_json, human=f"{digest} is not denied; the deny list has version {changed['version']}")


@refusals
def denials(
    credential: CredentialFile,
    registry: Annotated[str, typer.Option(envvar="UMEC_REGISTRY", help="The registry's URL, https://HOST:PORT.")],
    as_json: AsJson = False,
) -> None:
    """Show what is denied: digests, and versions below a minimum."""
    found = _ask(credential, registry.rstrip("/"), "GET", "denials")
    lines = [f"{each['digest']}  {each['denied_at']}  {each['actor']}: {each['reason']}" for each in found["denials"]]
    lines += [
        f"{each['repository']} below {each['minimum']}  {each['set_at']}  {each['actor']}: {each['reason']}"
        for each in found["minimums"]
    ]
    emit(found, as_json=as_json, human="\n".join([f"version {found['version']}", *lines]))


@refusals
def minimum(
    repository: Annotated[str, typer.Argument(help="HOST:PORT/TENANT/NAME.")],
    version: Annotated[str, typer.Argument(help="The lowest version that may start, as 1.4.0; none to lift it.")],
    credential: CredentialFile,
    reason: Annotated[str, typer.Option(help="Why, in one line: the list and the audit log keep it.")],
    lower: Annotated[bool, typer.Option("--lower", help="Let the minimum fall; without this it only rises.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set the minimum version of a repository: what is below it, or states no version, starts no more."""
    from umec_images.oci.reference import parse_reference

    wanted = {
        "repository": parse_reference(repository).repository,
        "version": None if version == "none" else version,
        "reason": reason,
        "lower": lower,
    }
    changed = _ask(credential, registry_url(repository), "PUT", "minimums", json=wanted)
    human = f"the minimum of {changed['repository']} is {changed['minimum'] or 'none'}"
    emit(changed, as_json=as_json, human=f"{human}; the deny list has version {changed['version']}")


def _denied(image: str, registry: str | None) -> tuple[str, str]:
    """Return the registry's URL and the digest that is meant: a tag is none, what is denied must be exact."""
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import check_digest, parse_reference

    if not image.startswith("sha256:"):
        digest = parse_reference(image).digest
        if digest is None:
            raise ReferenceInvalid("this names no digest", advice="Write HOST:PORT/TENANT/NAME@sha256:DIGEST.")
        return registry_url(image), digest
    if registry is None:
        raise ReferenceInvalid("the deny list is at the registry", advice="--registry https://HOST:PORT")
    return registry.rstrip("/"), check_digest(image)


def _ask(credential: Path, base: str, method: str, path: str, *, json: dict[str, Any] | None = None) -> dict[str, Any]:
    from umec_platform.cli.remote import connected

    async def ask() -> dict[str, Any]:
        async with connected(credential) as client:
            url = f"{base}/images/v1/{path}"
            answer = await client.request(method, url, resource=f"{base}/", scopes=("images:admin",), json=json)
            return dict(answer.json())

    return asyncio.run(ask())
