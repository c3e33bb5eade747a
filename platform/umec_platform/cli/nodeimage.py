"""`umec nodeimage`: node images, built and measured before any node boots them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from umec_platform.cli.approving import approve
from umec_platform.cli.boot import boot
from umec_platform.cli.building import build, keys
from umec_platform.cli.grace import GraceFrom, GraceLength
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.predicting import firmware, predict, sign_draft, signed_lines
from umec_platform.cli.publishing import publish, versions
from umec_platform.cli.signing import ELSEWHERE
from umec_platform.cli.transferring import fetch, push
from umec_platform.cli.updating import update, update_confirm, update_settle, update_status

__all__ = ["app"]

app = typer.Typer(help="Work with node images.", no_args_is_help=True)


@app.callback()
def _nodeimage() -> None:
    """Work with node images."""


app.command()(build)
app.command()(keys)
app.command()(boot)
app.command()(predict)
app.command()(approve)
app.command()(firmware)
app.command()(update)
app.command()(update_status)
app.command()(update_settle)
app.command()(update_confirm)
app.command()(push)
app.command()(fetch)
app.command()(publish)
app.command()(versions)


@app.command()
@refusals
def sign(
    draft: Annotated[Path, typer.Argument(help="A draft: what predict --draft or import-corim wrote, completed.")],
    name: Annotated[str, typer.Option(help="Name of the image: nodes are enrolled for it.")],
    version: Annotated[int, typer.Option(min=1, help="Version of the reference set; it may never fall.")],
    key: Annotated[str, typer.Option(help=f"P-256 private key that signs the set: a file (PEM, 0600), {ELSEWHERE}.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the reference set expires.")] = 90,
    image_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the image, where the draft has none.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the signed reference set goes (default: NAME.reference.json).")
    ] = None,
    grace: GraceLength = None,
    grace_from: GraceFrom = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Sign a draft as a reference set.

    A draft says all that a set can: PCR values, PCRs that are ignored with the reason, firmware models with the quirks
    that are excused for them, and what may run after the boot.
    """
    from dataclasses import replace

    from umec_attest.reference import parse_draft
    from umec_platform.cli.files import read_file

    wanted = parse_draft(read_file(draft))
    if image_sha256 is not None and wanted.image_sha256 is None:
        wanted = replace(wanted, image_sha256=image_sha256)
    result = sign_draft(wanted, name, version, days, key, out, grace=grace, grace_from=grace_from)
    emit(result, as_json=as_json, human="\n".join(signed_lines(result)))


@app.command()
@refusals
def import_corim(
    file: Annotated[Path, typer.Argument(help="An unsigned CoRIM (CBOR), as a vendor gives it.")],
    out: Annotated[Path, typer.Option(help="Where the draft goes.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read the PCR values of a CoRIM into a draft; it counts only when you have looked at it and signed it."""
    from umec_attest.corim import read_corim
    from umec_attest.reference import render_draft
    from umec_platform.cli.files import read_file

    found = read_corim(read_file(file))
    draft = render_draft(found.values, found.models, found.image_sha256)
    out.write_text(json.dumps(draft, indent=2) + "\n", encoding="utf-8")
    times = {"issued": found.issued, "expires": found.expires}
    result: dict[str, Any] = {"draft": str(out), **draft, "left_out": list(found.left_out)}
    result |= {name: moment.isoformat() for name, moment in times.items() if moment is not None}
    emit(result, as_json=as_json)


@app.command()
@refusals
def export_corim(
    reference: Annotated[Path, typer.Argument(help="A signed reference set.")],
    signer: Annotated[list[Path], typer.Option(help="PEM public key that may have signed it (repeatable).")],
    out: Annotated[Path, typer.Option(help="Where the unsigned CoRIM goes.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the PCR values of a reference set as a CoRIM, for other verifiers; says what a CoRIM cannot say."""
    from umec_attest.corim import write_corim
    from umec_attest.reference import verify_reference_set
    from umec_core.clock import system_clock
    from umec_platform.cli.evidence import load_signer
    from umec_platform.cli.files import read_file

    keys = [load_signer(read_file(path)) for path in signer]
    checked = verify_reference_set(read_file(reference), signers=keys, now=system_clock(), minimum_version=0)
    written, unsaid = write_corim(checked)
    out.write_bytes(written)
    emit({"corim": str(out), "name": checked.name, "version": checked.version, "unsaid": list(unsaid)}, as_json=as_json)
