"""`umec nodeimage`: what a node image will measure, before any node boots it."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.predict import PredictedPcrs

__all__ = ["app"]

app = typer.Typer(help="Work with node images.", no_args_is_help=True)


@app.callback()
def _nodeimage() -> None:
    """Work with node images."""


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict the PCR values that a boot of this image gives and, with --key, sign them as a reference set.

    PCRs that the image says nothing about (1 to 3 and 6 hold the platform's own configuration) are predicted for the
    firmware of the image folder.
    """
    from umec_attest.predict import predict as predict_folder

    predicted = predict_folder(folder)
    result: dict[str, Any] = {
        "image_sha256": predicted.subject_sha256,
        "pcrs": {"sha256": {str(pcr): value.hex() for pcr, value in predicted.pcrs.items()}},
    }
    if key is not None:
        result |= _sign(predicted, name, version, days, key, out)
    emit(result, as_json=as_json, human=_human(result))


def _sign(
    predicted: "PredictedPcrs", name: str | None, version: int | None, days: int, key: Path, out: Path | None
) -> dict[str, Any]:
    from umec_attest.errors import ReferenceInvalid
    from umec_attest.reference import sign_reference_set
    from umec_attest.tpm.algorithms import HashAlgorithm
    from umec_core.clock import system_clock
    from umec_core.keys import load_or_create_key

    if name is None or version is None:
        raise ReferenceInvalid("a reference set needs --name and --version")
    now = system_clock().replace(microsecond=0)
    envelope = sign_reference_set(
        name=name,
        subject_sha256=predicted.subject_sha256,
        version=version,
        issued=now,
        expires=now + timedelta(days=days),
        pcrs={HashAlgorithm.SHA256: {pcr: [value] for pcr, value in predicted.pcrs.items()}},
        ignored={},
        key=load_or_create_key(key),
    )
    target = out or Path(f"{name}.reference.json")
    target.write_bytes(envelope)
    return {"reference": str(target), "name": name, "version": version}


def _human(result: dict[str, Any]) -> str:
    lines = [f"image sha256:{result['image_sha256']}"]
    lines += [f"PCR {pcr:>2}  {value}" for pcr, value in result["pcrs"]["sha256"].items()]
    if "reference" in result:
        lines.append(f"reference set {result['name']} version {result['version']}: {result['reference']}")
    return "\n".join(lines)


@app.command()
@refusals
def publish(
    file: Annotated[Path, typer.Argument(help="A signed reference set.")],
    credential: Annotated[Path, typer.Option(envvar="UMEC_CREDENTIAL", help="The operator's credential file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Give a signed reference set to the verifier: from now on nodes of that image are judged by it."""
    import asyncio

    from umec_platform.cli.files import read_file
    from umec_platform.cli.remote import connected

    envelope = read_file(file)

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
