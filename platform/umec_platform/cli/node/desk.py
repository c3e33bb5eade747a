"""At an operator's desk: tickets, the nodes and their standing, and what an operator decides about them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from umec_platform.cli.node.parameters import Class, Credential, DryRun, Json, Node, Reason
from umec_platform.cli.output import emit, refusals

__all__ = [
    "allow",
    "allow_version",
    "approve",
    "disallow",
    "explain",
    "list_nodes",
    "operate",
    "quarantine",
    "readmit",
    "revoke",
    "show",
    "ticket",
]


@refusals
def ticket(
    asset: Annotated[str, typer.Argument(help="The asset; it becomes the node's id.")],
    tenant: Annotated[str, typer.Option(help="The tenant that the node belongs to.")],
    image: Annotated[str, typer.Option(help="The node image whose reference set applies.")],
    ek_sha256: Annotated[str, typer.Option(help="What `umec node ek` printed on the node.")],
    credential: Credential,
    node_class: Class = "standard",
    lifetime: Annotated[int, typer.Option(help="Seconds until the ticket ends.")] = 3600,
    as_json: Json = False,
) -> None:
    """Make an enrolment ticket, good for one TPM and one enrolment."""
    body = {
        "asset": asset,
        "tenant": tenant,
        "image": image,
        "class": node_class,
        "ek_sha256": ek_sha256,
        "lifetime_seconds": lifetime,
    }
    made = operate(credential, "POST", "tickets", "attest:admin", body)
    emit(made, as_json=as_json, human=str(made["ticket"]))


@refusals
def allow(
    asset: Annotated[str, typer.Argument(help="The asset; it becomes the node's id.")],
    tenant: Annotated[str, typer.Option(help="The tenant that the node belongs to.")],
    image: Annotated[str, typer.Option(help="The node image whose reference set applies.")],
    ek_sha256: Annotated[str, typer.Option(help="What `umec node ek` printed on the node, or its maker's list says.")],
    credential: Credential,
    node_class: Class = "standard",
    days: Annotated[int, typer.Option(min=1, max=366, help="Days until it has to have enrolled.")] = 30,
    as_json: Json = False,
) -> None:
    """Let the node with this TPM enrol once without a ticket, as that asset, approved at once."""
    body = {"asset": asset, "tenant": tenant, "image": image, "class": node_class, "lifetime_seconds": days * 86400}
    said = operate(credential, "PUT", f"allowed-tpms/{ek_sha256}", "attest:admin", body)
    emit(said, as_json=as_json, human=f"{said['node']} may enrol until {said['expires_at']}")


@refusals
def disallow(
    ek_sha256: Annotated[str, typer.Argument(help="The endorsement key that `umec node allow` was told.")],
    credential: Credential,
    as_json: Json = False,
) -> None:
    """Take back what `umec node allow` said, while its TPM has not enrolled; a node is revoked instead."""
    said = operate(credential, "DELETE", f"allowed-tpms/{ek_sha256}", "attest:admin")
    emit(said, as_json=as_json, human=f"{said['node']} may not enrol without a ticket any more")


@refusals
def list_nodes(
    credential: Credential,
    standing: Annotated[str | None, typer.Option(help="Only nodes of this standing, e.g. untrusted.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only nodes of this tenant.")] = None,
    node_class: Annotated[str | None, typer.Option("--class", help="Only nodes of this class.")] = None,
    behind: Annotated[bool, typer.Option("--behind", help="Only nodes on an older version than the newest.")] = False,
    as_json: Json = False,
) -> None:
    """List the nodes, their standing, and the version of their image that they stood on last."""
    wanted = {"standing": standing, "tenant": tenant, "class": node_class}
    query = {name: value for name, value in wanted.items() if value is not None}
    nodes: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = operate(credential, "GET", f"nodes?{urlencode(query | {'after': after})}", "attest:read")
        nodes, after = [*nodes, *page["nodes"]], page["next"]
    if behind:
        sets = operate(credential, "GET", "reference-sets", "attest:read")["reference_sets"]
        newest = {each["image"]: each["version"] for each in sets if each["counts"] == "newest"}
        nodes = [row for row in nodes if row["version"] is not None and row["version"] < newest.get(row["image"], 0)]
    rows = [
        f"{row['node']:<24} {row.get('tenant') or '-':<16} {row['standing']:<12} "
        f"{row['image'] or '-'} {row['version'] or '-'}"
        for row in nodes
    ]
    emit({"nodes": nodes}, as_json=as_json, human="\n".join(rows) if rows else "no nodes")


@refusals
def show(node: Node, credential: Credential, as_json: Json = False) -> None:
    """Show what a node is worth, since when and why, and what to do about it."""
    from umec_core.clock import system_clock
    from umec_platform.cli.node.explain import next_steps, summary
    from umec_platform.cli.node.image import image_lines, image_of

    said = operate(credential, "GET", f"nodes/{node}/explain", "attest:read")
    short = {name: value for name, value in said.items() if name not in {"last_round", "events", "history"}}
    images = image_of(credential, node)
    lines = [summary(said, system_clock()), *(f"image         {line.strip()}" for line in image_lines(images))]
    emit(short | {"next": next_steps(said), "image_update": images}, as_json=as_json, human="\n".join(lines))


@refusals
def explain(node: Node, credential: Credential, as_json: Json = False) -> None:
    """Say why a node stands as it does, and what to do.

    What was expected and found (PCRs and the events behind them), which policies decided, since when, the digests of
    what was judged, and the standings before.
    """
    from umec_core.clock import system_clock
    from umec_platform.cli.node.explain import explanation, next_steps

    said = operate(credential, "GET", f"nodes/{node}/explain", "attest:read")
    emit(said | {"next": next_steps(said)}, as_json=as_json, human=explanation(said, system_clock()))


@refusals
def approve(
    node: Node,
    credential: Credential,
    tenant: Annotated[str | None, typer.Option(help="To whom the node belongs, where no ticket said it.")] = None,
    image: Annotated[str | None, typer.Option(help="Which node image it runs, where no ticket said it.")] = None,
    node_class: Class = "standard",
    as_json: Json = False,
) -> None:
    """Approve a node that enrolled without a ticket."""
    named = {"tenant": tenant, "image": image, "class": node_class}
    body = {name: value for name, value in named.items() if value is not None}
    _decide(node, "approve", credential, body, as_json=as_json)


@refusals
def quarantine(
    node: Node, credential: Credential, reason: Reason = "", dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Take a node out until it is readmitted, whatever its evidence says."""
    _decide(node, "quarantine", credential, {"reason": reason}, as_json=as_json, dry_run=dry_run)


@refusals
def readmit(
    node: Node, credential: Credential, reason: Reason = "", dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Let a quarantined node prove itself again."""
    _decide(node, "readmit", credential, {"reason": reason}, as_json=as_json, dry_run=dry_run)


@refusals
def revoke(
    node: Node, credential: Credential, reason: Reason = "", dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Revoke a node for good: only a new enrolment brings it back."""
    _decide(node, "revoke", credential, {"reason": reason}, as_json=as_json, dry_run=dry_run)


@refusals
def allow_version(
    node: Node,
    version: Annotated[int, typer.Option(min=1, help="The oldest version of its image that it may run.")],
    credential: Credential,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Let a node go back to an older version of its image, as long as that counts; a fallen node then has to boot."""
    body = {"version": version, "reason": reason}
    said = operate(credential, "POST", f"nodes/{node}/allow-version", "attest:admin", body)
    emit(said, as_json=as_json, human=f"{node}: may run version {said['version_floor']} or newer; {said['standing']}")


def _decide(
    node: str, decision: str, credential: Path, body: Mapping[str, str], *, as_json: bool, dry_run: bool = False
) -> None:
    query = "?dry_run=true" if dry_run else ""
    said = operate(credential, "POST", f"nodes/{node}/{decision}{query}", "attest:admin", body)
    emit(said, as_json=as_json, human=f"{node}: {'would be ' if dry_run else ''}{said['standing']}")


def operate(
    credential: Path, method: str, path: str, scope: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Send an operator's request to the verifier, and return its answer."""
    from umec_platform.cli.remote import connected

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            base = f"{client.credential.issuer}/attest/v1"
            response = await client.request(method, f"{base}/{path}", resource=base, scopes=(scope,), json=body)
            said = response.json() if response.content else {}
            return said if isinstance(said, dict) else {"answer": said}

    return asyncio.run(send())
