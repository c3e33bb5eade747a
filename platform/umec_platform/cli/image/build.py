"""`umec image build|push`: an image from its files, into the registry."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umec_platform.cli.image.common import PUSH, AsJson, CredentialFile, Image, emit_digest, run
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient

__all__ = ["REPORT", "build", "push"]

REPORT = "umec-build.json"
"""The build report, beside the index of the layout."""


@refusals
def build(
    source: Annotated[Path, typer.Argument(help="A description (image.toml), or the folder that holds one.")],
    out: Annotated[Path, typer.Option(help="The folder for the OCI image layout.")],
    tag: Annotated[str, typer.Option(help="The tag that the image will have.")] = "latest",
    version: Annotated[
        str | None, typer.Option(help="Its semantic version, in place of the description's: 1.4.0, 1.4.0-rc.1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build an image from Debian packages and Python distributions of this machine, and from folders."""
    from umec_images.build import build_image, load_spec

    spec, base = load_spec(source)
    report = build_image(spec, base, out, tag=tag, version=version).to_json()
    (out / REPORT).write_text(json.dumps(report, sort_keys=True))
    lines = [f"{each['name']}: {each['files']} files, {each['size'] / 1e6:.1f} MB" for each in report["layers"]]
    human = "\n".join([*lines, f"{report['digest']} ({report['size'] / 1e6:.1f} MB) is in {out}"])
    emit(report, as_json=as_json, human=human)


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

    digest = run(credential, image, PUSH, upload)
    emit_digest(image, digest, as_json=as_json)
