"""`umec node image`: which image a node should have, said at the site; the node fetches it, tries it, and reports."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.node.parameters import Credential, Json, Reason
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_core.remote import RemoteRefused

__all__ = ["image", "image_lines", "image_of", "not_shown", "of_fleet"]

ORDERS = "/platform/v1/node-images"
UNSEEN = frozenset({"grant-denied", "scope-invalid", "token-scope"})
"""Refusals to who may see nodes, and nothing of the platform."""


@refusals
def image(
    credential: Credential,
    target: Annotated[
        str | None, typer.Argument(help="A node's id, or TENANT/NAME: all nodes of the tenant with that image.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE]", help="HOST:PORT/TENANT/NAME@sha256:DIGEST, in the site's registry."),
    ] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was said.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Have an image tried once more where it failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Say which image a node should have, or show what was said and what became of it.

    The site has to admit the image (signed, promoted to production, not denied). The node asks within a minute, fetches
    it, tries it once, and keeps it when the verifier trusts it. Publish its reference set before. What fails is shown
    here, and not tried again by itself.
    """
    if target is not None and name is not None and not withdraw:
        wish = _wish(target, name, again=again, reason=reason)
        _order(credential, wish, dry_run=dry_run, as_json=as_json)
    elif target is not None and withdraw and name is None and not dry_run:
        _withdraw(credential, target, as_json=as_json)
    elif name is None and not (withdraw or again or dry_run):
        _show(credential, target, as_json=as_json)
    else:
        raise typer.BadParameter("give a target and an image, a target and --withdraw, or at most a target")


def image_of(credential: Path, node: str) -> dict[str, Any]:
    """Return what was ordered for a node and what it reported; for who may not see that, with the code as `refused`."""
    from umec_core.remote import RemoteRefused

    try:
        return _call(credential, "GET", ORDERS, params={"node": node})
    except RemoteRefused as error:
        return not_shown(error)


def not_shown(error: "RemoteRefused") -> dict[str, Any]:
    """Return what to show where the site has no orders at all, or this client may not see them; raise all else."""
    from umec_core.errors import Kind

    if error.kind is Kind.NOT_FOUND:
        return {"orders": [], "nodes": []}
    if error.code in UNSEEN:
        return {"orders": [], "nodes": [], "refused": error.code}
    raise error


def of_fleet(said: dict[str, Any], fleet: str) -> dict[str, Any]:
    """Return what concerns the nodes of TENANT/NAME: their reports, the order for all of them and those for each."""
    tenant, _, image = fleet.partition("/")
    nodes = [node for node in said["nodes"] if (node["tenant"], node["image"]) == (tenant, image)]
    targets = {f"image/{fleet}", *(f"node/{node['node']}" for node in nodes)}
    return {"orders": [order for order in said["orders"] if order["target"] in targets], "nodes": nodes}


def image_lines(said: dict[str, Any]) -> list[str]:
    """Return what was ordered and reported, for a reader."""
    lines = [f"not shown to this client: {said['refused']}"] if "refused" in said else []
    for order in said["orders"]:
        tries = f", attempt {order['attempt']}" if order["attempt"] > 1 else ""
        lines.append(f"{order['target']}: {order['image']} version {order['version']} ({order['digest'][:19]}…){tries}")
    for node in said["nodes"]:
        runs = f"{node['node']} runs {node['image'] or '-'} version {node['running'] or '-'}"
        trial = f", on trial: version {node['confirmed']} is what it starts" if node["phase"] == "trial" else ""
        lines.append(f"{runs}{trial}")
        if node["code"] is not None:
            of = "" if node["version"] is None else f" to version {node['version']}"
            where = "" if node["digest"] is None else f" ({node['digest'][:19]}…)"
            lines.append(f"  update{of}{where} failed: {node['code']}: {node['detail']}")
    return lines


def _wish(target: str, name: str, *, again: bool, reason: str) -> dict[str, Any]:
    from umec_images.oci.errors import ReferenceInvalid
    from umec_images.oci.reference import parse_reference

    found = parse_reference(name)
    if found.digest is None:
        raise ReferenceInvalid("this names no digest", advice="Write HOST:PORT/TENANT/NAME@sha256:DIGEST.")
    wish = {"repository": found.repository, "digest": found.digest, "again": again, "reason": reason}
    return wish | {"fleet" if "/" in target else "node": target}


def _order(credential: Path, wish: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    said = _call(credential, "PUT", ORDERS, json=wish, params={"dry_run": "true"} if dry_run else {})
    would = "would be" if dry_run else "is"
    human = f"{said['target']}: {said['image']} version {said['version']} {would} what it should have"
    emit(said, as_json=as_json, human=human)


def _withdraw(credential: Path, name: str, *, as_json: bool) -> None:
    target = f"image/{name}" if "/" in name else f"node/{name}"
    _call(credential, "DELETE", ORDERS, params={"target": target})
    emit({"target": target, "withdrawn": True}, as_json=as_json, human=f"{target}: nothing is ordered any more")


def _show(credential: Path, target: str | None, *, as_json: bool) -> None:
    fleet = target if target is not None and "/" in target else None
    said = _call(credential, "GET", ORDERS, params={} if target is None or fleet is not None else {"node": target})
    said = said if fleet is None else of_fleet(said, fleet)
    emit(said, as_json=as_json, human="\n".join(image_lines(said)) or "nothing is ordered, and no node has reported")


def _call(credential: Path, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - of the request
    from umec_platform.cli.remote import connected

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            base = client.credential.issuer
            url = f"{base}{path}"
            answer = await client.request(
                method, url, resource=f"{base}/platform/v1", scopes=("platform:admin",), **arguments
            )
            return dict(answer.json()) if answer.content else {}

    return asyncio.run(send())
