"""`umec nodeimage`: node images, built and measured before any node boots them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.building import build, keys
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.predict import PredictedPcrs
    from umec_attest.reference import ReferenceDraft
    from umec_attest.reference.values import AllowedValues

__all__ = ["app"]

app = typer.Typer(help="Work with node images.", no_args_is_help=True)


@app.callback()
def _nodeimage() -> None:
    """Work with node images."""


app.command()(build)
app.command()(keys)


@app.command()
@refusals
def predict(
    folder: Annotated[Path, typer.Argument(help="firmware.bin, firmware.version, efivars/…, uki.efi")],
    name: Annotated[str | None, typer.Option(help="Name of the image: nodes are enrolled for it.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Version of the reference set; it may never fall.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the reference set expires.")] = 90,
    key: Annotated[Path | None, typer.Option(help="P-256 private key (PEM, 0600) that signs the set.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the signed reference set goes (default: NAME.reference.json).")
    ] = None,
    draft: Annotated[Path | None, typer.Option(help="Where a draft goes, for you to complete and sign.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The root file system as a folder: its files, and no others, may run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict the PCR values that a boot of this image gives and, with --key, sign them as a reference set.

    PCRs that the image says nothing about (1 to 3 and 6 hold the platform's own configuration) are predicted for the
    firmware of the image folder. With --root what runs after the boot is judged as well, by the kernel's list (IMA): it
    begins with a hash over PCR 0 to 9, and a boot like this measures nothing into PCR 8.
    """
    from dataclasses import replace

    from umec_attest.predict import predict as predict_folder
    from umec_attest.predict import predict_runtime
    from umec_attest.reference import render_draft

    predicted, runtime = predict_folder(folder), None if root is None else predict_runtime(root)
    if runtime is not None:
        predicted = replace(predicted, pcrs=dict(sorted({8: bytes(32), **predicted.pcrs}.items())))
    result: dict[str, Any] = {
        "image_sha256": predicted.subject_sha256,
        "pcrs": {"sha256": {str(pcr): value.hex() for pcr, value in predicted.pcrs.items()}},
    }
    if draft is not None:
        wanted = render_draft(_values(predicted), {}, predicted.subject_sha256)
        wanted |= {} if runtime is None else {"runtime": runtime}
        draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        result |= {"draft": str(draft)}
    if key is not None:
        result |= _sign(predicted, runtime, name, version, days, key, out)
    emit(result, as_json=as_json, human=_human(result))


def _sign(
    predicted: "PredictedPcrs",
    runtime: dict[str, Any] | None,
    name: str | None,
    version: int | None,
    days: int,
    key: Path,
    out: Path | None,
) -> dict[str, Any]:
    from types import MappingProxyType

    from umec_attest.errors import ReferenceInvalid
    from umec_attest.ima import parse_runtime_policy
    from umec_attest.reference import ReferenceDraft

    if name is None or version is None:
        raise ReferenceInvalid("a reference set needs --name and --version")
    nothing: MappingProxyType[Any, Any] = MappingProxyType({})
    allowed = None if runtime is None else parse_runtime_policy(runtime)
    draft = ReferenceDraft(predicted.subject_sha256, _values(predicted), nothing, nothing, allowed)
    return _signed(draft, name, version, days, key, out)


def _values(predicted: "PredictedPcrs") -> "AllowedValues":
    from umec_attest.tpm.algorithms import HashAlgorithm

    return {HashAlgorithm.SHA256: {pcr: frozenset({value}) for pcr, value in predicted.pcrs.items()}}


def _signed(draft: "ReferenceDraft", name: str, version: int, days: int, key: Path, out: Path | None) -> dict[str, Any]:
    from umec_attest.errors import ReferenceInvalid
    from umec_attest.reference import MAX_PUBLISHED, sign_reference_set
    from umec_core.clock import system_clock
    from umec_core.keys import load_or_create_key

    if draft.image_sha256 is None:
        raise ReferenceInvalid(
            "nobody said which image it is of", advice='give --image-sha256, or "image_sha256" in it'
        )
    now = system_clock().replace(microsecond=0)
    envelope = sign_reference_set(
        name=name,
        subject_sha256=draft.image_sha256,
        version=version,
        issued=now,
        expires=now + timedelta(days=days),
        pcrs=draft.pcrs,
        ignored=draft.ignored,
        models=draft.models,
        runtime=draft.runtime,
        key=load_or_create_key(key),
    )
    target = out or Path(f"{name}.reference.json")
    target.write_bytes(envelope)
    result = {"reference": str(target), "name": name, "version": version}
    return result if len(envelope) <= MAX_PUBLISHED else result | {"warning": _too_large(len(envelope))}


def _too_large(size: int) -> str:
    from umec_attest.reference import MAX_PUBLISHED

    return f"the set has {size:,} bytes, and a verifier takes {MAX_PUBLISHED:,}: it is good for offline use only"


@app.command()
@refusals
def sign(
    draft: Annotated[Path, typer.Argument(help="A draft: what predict --draft or import-corim wrote, completed.")],
    name: Annotated[str, typer.Option(help="Name of the image: nodes are enrolled for it.")],
    version: Annotated[int, typer.Option(min=1, help="Version of the reference set; it may never fall.")],
    key: Annotated[Path, typer.Option(help="P-256 private key (PEM, 0600) that signs the set.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the reference set expires.")] = 90,
    image_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the image, where the draft has none.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the signed reference set goes (default: NAME.reference.json).")
    ] = None,
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
    result = _signed(wanted, name, version, days, key, out)
    emit(result, as_json=as_json, human="\n".join(_signed_lines(result)))


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


def _human(result: dict[str, Any]) -> str:
    lines = [f"image sha256:{result['image_sha256']}"]
    lines += [f"PCR {pcr:>2}  {value}" for pcr, value in result["pcrs"]["sha256"].items()]
    if "reference" in result:
        lines += _signed_lines(result)
    return "\n".join(lines)


def _signed_lines(result: dict[str, Any]) -> list[str]:
    lines = [f"reference set {result['name']} version {result['version']}: {result['reference']}"]
    return lines if "warning" not in result else [*lines, f"warning: {result['warning']}"]


@app.command()
@refusals
def publish(
    file: Annotated[Path, typer.Argument(help="A signed reference set.")],
    credential: Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The operator's credential file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Give a signed reference set to the verifier: from now on nodes of that image are judged by it."""
    import asyncio

    from umec_attest.errors import ReferenceTooLarge
    from umec_attest.reference import MAX_PUBLISHED
    from umec_platform.cli.files import read_file
    from umec_platform.cli.remote import connected

    envelope = read_file(file)
    if len(envelope) > MAX_PUBLISHED:
        raise ReferenceTooLarge(_too_large(len(envelope)))

    async def send() -> dict[str, Any]:
        async with connected(credential) as client:
            attest = f"{client.credential.issuer}/attest/v1"
            answer = await client.request(
                "POST",
                f"{attest}/reference-sets",
                resource=attest,
                scopes=("attest:admin",),
                content=envelope,
                headers={"Content-Type": "application/vnd.dsse.envelope.v1+json"},
            )
            return dict(answer.json())

    taken = asyncio.run(send())
    human = f"{taken['image']} version {taken['version']} is what nodes are judged by, until {taken['expires']}"
    emit(taken, as_json=as_json, human=human)
