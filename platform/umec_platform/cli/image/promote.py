"""`umec image promote`: let an image pass to a stage."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.image.common import PULL, AsJson, CredentialFile, Image, look_up, registry_url, run
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.client import OAuthClient
    from umec_images.oci.client import RegistryClient

__all__ = ["promote"]


@refusals
def promote(
    image: Image,
    credential: CredentialFile,
    stage: Annotated[str, typer.Option(help="staging or production.")],
    minimum: Annotated[
        bool, typer.Option("--minimum", help="Let no earlier version start any more, from now on (production only).")
    ] = False,
    rollback: Annotated[
        str | None, typer.Option(help="As an operator, go back to an earlier version: why, in one line.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let an image pass to a stage: the images service verifies it, asks its policies, and signs a summary."""

    async def ask(registry: "RegistryClient", client: "OAuthClient") -> dict[str, Any]:
        repository, digest = await look_up(registry, image)
        url = registry_url(image)
        wanted = {"repository": repository, "digest": digest, "stage": stage, "minimum": minimum, "rollback": rollback}
        answer = await client.request(
            "POST", f"{url}/images/v1/promotions", resource=f"{url}/", scopes=("images:promote",), json=wanted
        )
        return {"digest": digest, "stage": stage, **answer.json()}

    made = run(credential, image, PULL, ask)
    emit(made, as_json=as_json, human=f"{made['digest']} passed to {stage}; the summary is {made['vsa_digest']}")
