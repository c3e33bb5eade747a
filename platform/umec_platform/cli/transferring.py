"""`umec nodeimage push` and `umec nodeimage fetch`: node images in the registry, beside those of applications."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umec_platform.cli.image.common import PULL, PUSH, AsJson, CredentialFile, Image, run
from umec_platform.cli.image.verify import ask_admission, require_admitted
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.client import OAuthClient
    from umec_images.nodeimage.artifact import NodeImage, Pushed
    from umec_images.oci.client import RegistryClient

__all__ = ["fetch", "push"]

MEGABYTE = 1_000_000
PARTS = 10
LONG = 10 * MEGABYTE
"""Bytes of a file of which is said how far it is: some seconds on a mobile network."""


@refusals
def push(
    folder: Annotated[Path, typer.Argument(help="What `umec nodeimage build` made.")],
    image: Image,
    credential: CredentialFile,
    as_json: AsJson = False,
) -> None:
    """Upload a node image; files that the repository holds are not sent again, and a tag never moves.

    `umec image sign`, `attach`, `verify`, `promote` and `deny` are for it as for images of applications.
    """
    from umec_images.nodeimage.artifact import push_image
    from umec_images.oci.reference import parse_reference

    name = parse_reference(image)

    async def upload(registry: "RegistryClient", _client: "OAuthClient") -> "Pushed":
        return await push_image(registry, folder, name.repository, name.tag or name.digest, _Progress())

    pushed = run(credential, image, PUSH, upload)
    exact = f"{image.partition('@')[0]}@{pushed.digest}"
    human = f"{exact}\n{pushed.sent / MEGABYTE:.1f} of {pushed.size / MEGABYTE:.1f} MB had to be sent"
    emit({"digest": pushed.digest, "size": pushed.size, "sent": pushed.sent}, as_json=as_json, human=human)


@refusals
def fetch(
    image: Annotated[str, typer.Argument(help="HOST:PORT/TENANT/NAME@sha256:DIGEST; a tag is not exact.")],
    out: Annotated[Path, typer.Option(help="The folder that becomes the image; it is not there yet.")],
    credential: CredentialFile,
    stage: Annotated[str, typer.Option(help="The stage that it is wanted for: staging or production.")] = "production",
    references: Annotated[
        Path | None, typer.Option(help="The folder for reference sets that are attached to it: DIGEST.json each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a node image that the site admits: signed, promoted to the stage, and not denied.

    Each file is checked against its digest while it is written, and against manifest.json. Attached reference sets
    prove nothing here: `umec nodeimage publish` has the verifier check who signed them.
    """
    from umec_images.nodeimage.artifact import fetch_image, fetch_references
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import parse_reference

    name = parse_reference(image)
    digest = name.digest
    if digest is None:
        raise ReferenceInvalid("this names no digest", advice="Write HOST:PORT/TENANT/NAME@sha256:DIGEST.")

    async def download(registry: "RegistryClient", client: "OAuthClient") -> tuple["NodeImage", list[Path]]:
        async def admitted() -> None:
            require_admitted(await ask_admission(client, image, digest, stage))

        sets = [] if references is None else await fetch_references(registry, name.repository, digest)
        found = await fetch_image(registry, name.repository, digest, out, _Progress(), admitted=admitted)
        return found, [] if references is None else _keep(references, sets)

    found, kept = run(credential, image, PULL, download)
    result = {
        "folder": str(out),
        "name": found.name,
        "version": found.version,
        "digest": digest,
        "manifest": found.layers["manifest.json"].digest,
        "references": [str(path) for path in kept],
    }
    lines = [f"{found.name} version {found.version}: {out}", f"manifest.json is {result['manifest']}"]
    emit(result, as_json=as_json, human="\n".join([*lines, *(f"attached: {path}" for path in kept)]))


def _keep(folder: Path, sets: list[bytes]) -> list[Path]:
    paths = [folder / f"{hashlib.sha256(each).hexdigest()}.json" for each in sets]
    for path, content in zip(paths, sets, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


class _Progress:
    """Says how far a long file is, at each tenth of it."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __call__(self, path: str, done: int, size: int) -> None:
        if size >= LONG and done * PARTS // size > self._said.get(path, 0):
            self._said[path] = done * PARTS // size
            sys.stderr.write(f"{path}: {done / MEGABYTE:.0f} of {size / MEGABYTE:.0f} MB\n")
            sys.stderr.flush()
