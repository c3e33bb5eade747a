"""`umec nodeimage publish` and `umec nodeimage versions`: the versions of an image that nodes are judged by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from umec_platform.cli.grace import period
from umec_platform.cli.node.desk import operate
from umec_platform.cli.node.parameters import Credential, Json
from umec_platform.cli.output import emit, refusals

__all__ = ["publish", "versions"]


@refusals
def publish(
    file: Annotated[Path, typer.Argument(help="A signed reference set.")],
    credential: Credential,
    grace: Annotated[
        str | None, typer.Option(help="End the grace that it gives older versions sooner, e.g. after 12h; 0: now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a signed reference set to the verifier: from now on nodes of that image are judged by it.

    Older versions count beside it for as long as it says itself (`--grace` of predict and sign). With --grace that ends
    sooner, also for a set that was published before.
    """
    import asyncio

    from umec_attest.reference import pack
    from umec_platform.cli.files import read_file
    from umec_platform.cli.remote import connected

    content_type, body = pack(read_file(file))
    query = "" if grace is None else f"?grace_seconds={int(period(grace).total_seconds())}"

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            attest = f"{client.credential.issuer}/attest/v1"
            answer = await client.request(
                "POST",
                f"{attest}/reference-sets{query}",
                resource=attest,
                scopes=("attest:admin",),
                content=body,
                headers={"Content-Type": content_type},
            )
            return dict(answer.json())

    taken = asyncio.run(send())
    lines = [f"{taken['image']} version {taken['version']} is what nodes are judged by, until {taken['expires']}"]
    lines += [f"version {each['version']} counts beside it until {each['until']}" for each in taken["beside"]]
    emit(taken, as_json=as_json, human="\n".join(lines))


@refusals
def versions(
    credential: Credential,
    image: Annotated[str | None, typer.Argument(help="The name of an image (default: all of them).")] = None,
    as_json: Json = False,
) -> None:
    """List the versions of node images: which of them counts, and until when."""
    sets = operate(credential, "GET", "reference-sets", "attest:read")["reference_sets"]
    shown = [each for each in sets if image in {None, each["image"]}]
    lines = [f"{each['image']:<24} {each['version']:>6}  {_state(each)}" for each in shown]
    emit({"versions": shown}, as_json=as_json, human="\n".join(lines) if lines else "no versions")


def _state(version: dict[str, Any]) -> str:
    if version["counts"] == "newest":
        return f"counts until {version['expires']}"
    if version["counts"] == "beside":
        return f"counts beside the newest until {version['until']}"
    return "replaced" if version["until"] is None else f"counted until {version['until']}"
