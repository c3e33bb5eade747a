"""`umec audit`: the log of every service, fetched and checked."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from umec_core.errors import Invalid
from umec_platform.cli.output import emit, refusals

__all__ = ["app"]

app = typer.Typer()

SERVICES: Final = {
    "attest": ("attest/v1", "attest:admin"),
    "identity": ("identity/v1", "identity:clients"),
    "images": ("images/v1", "images:admin"),
    "platform": ("platform/v1", "platform:admin"),
}
"""Where a service's log is, and the scope that shows it."""


class AuditFileInvalid(Invalid):
    """A file is not an exported audit log."""

    code = "audit-file-invalid"


class AuditServiceUnknown(Invalid):
    """No service of that name keeps a log, or it is not said where."""

    code = "audit-service-unknown"


@app.command()
@refusals
def fetch(
    service: Annotated[str, typer.Argument(help="attest, identity, images or platform.")],
    credential: Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The operator's credential file.")],
    out: Annotated[Path, typer.Option(help="Where to write the log.")],
    registry: Annotated[
        str | None, typer.Option(envvar="UMEC_REGISTRY", help="The registry's URL: where the log of images is.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fetch a service's audit log with its signed checkpoint."""
    from umec_platform.cli.remote import connected

    if service not in SERVICES:
        raise AuditServiceUnknown(f"no service {service!r}", advice=f"one of {', '.join(SERVICES)}")
    path, scope = SERVICES[service]
    if service == "images" and registry is None:
        raise AuditServiceUnknown("the log of images is at the registry", advice="--registry https://HOST:5443")

    async def get() -> dict[str, Any]:
        async with connected(credential) as client:
            base = f"{client.credential.issuer}/{path}"
            resource = base
            if registry is not None and service == "images":
                base, resource = f"{registry.rstrip('/')}/{path}", f"{registry.rstrip('/')}/"

            async def page(after: int) -> Any:  # noqa: ANN401 - any JSON
                query = {"after": str(after)}
                said = await client.request("GET", f"{base}/audit", resource=resource, scopes=(scope,), params=query)
                return said.json()

            return await whole_log(page)

    export = asyncio.run(get())
    out.write_text(json.dumps(export, ensure_ascii=False))
    entries = len(export["entries"])
    emit(
        {"service": service, "entries": entries, "file": str(out)}, as_json=as_json, human=f"{entries} entries in {out}"
    )


@app.command()
@refusals
def verify(
    file: Annotated[Path, typer.Argument(help="A log that `umec audit fetch` wrote.")],
    key: Annotated[Path, typer.Option(help="The service's checkpoint key (PEM, public).")],
    previous: Annotated[
        Path | None, typer.Option(help="An older log of the same service: it must be a beginning of this one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that no entry is missing, moved or rewritten, and that the checkpoint signs just these entries."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from umec_core.audit import verify_export
    from umec_platform.cli.files import read_file

    document = _read(file)
    try:
        public = load_pem_public_key(read_file(key))
    except ValueError:
        raise AuditFileInvalid(f"{key} is no PEM public key", advice="`umec up` writes SERVICE-audit.pem") from None
    if not isinstance(public, EllipticCurvePublicKey):
        raise AuditFileInvalid(f"{key} is not a P-256 key", advice="`umec up` writes SERVICE-audit.pem")
    earlier = None if previous is None else str(_read(previous)["checkpoint"])
    verify_export(document, public, previous_checkpoint=earlier)
    entries = len(document["entries"])
    emit(
        {"ok": True, "entries": entries}, as_json=as_json, human=f"{entries} entries: none missing, moved or rewritten"
    )


async def whole_log(page: Callable[[int], Awaitable[Any]]) -> dict[str, Any]:
    """Return a log of which `page(after)` gives what is behind its first `after` entries.

    Raises `RemoteUnavailable` where the pages are not those of one log.
    """
    from umec_core.client import RemoteUnavailable

    entries: list[Any] = []
    try:
        while True:
            said = await page(len(entries))
            entries += said["entries"]
            if "next" not in said:
                return {"origin": said["origin"], "entries": entries, "checkpoint": said["checkpoint"]}
            if not said["entries"] or said["next"] != len(entries):
                raise RemoteUnavailable("the pages of the log do not follow each other")
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteUnavailable("the service did not answer with an audit log") from error


def _read(file: Path) -> dict[str, Any]:
    from umec_platform.cli.files import read_object

    document = read_object(file)
    if not {"origin", "entries", "checkpoint"} <= document.keys():
        raise AuditFileInvalid(f"{file} is not an exported audit log")
    return document
