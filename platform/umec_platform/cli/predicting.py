"""`umec nodeimage predict` and `umec nodeimage firmware`: what a boot will measure, what a firmware measured once."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.grace import GraceFrom, GraceLength, grace_of
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.owners import check_name, owner_of
from umec_platform.cli.signing import ELSEWHERE, load_signing_key

if TYPE_CHECKING:
    from umec_attest.predict import PredictedPcrs
    from umec_attest.reference import ReferenceDraft

__all__ = ["firmware", "predict", "sign_draft", "signed_lines"]


@refusals
def predict(
    folder: Annotated[Path, typer.Argument(help="What `umec nodeimage build` made, or an image for simulated boots.")],
    name: Annotated[str | None, typer.Option(help="Name of the image: nodes are enrolled for it.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Version of the reference set; it may never fall.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the reference set expires.")] = 90,
    key: Annotated[
        str | None, typer.Option(help=f"P-256 private key that signs the set: a file (PEM, 0600), {ELSEWHERE}.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the signed reference set goes (default: NAME.reference.json).")
    ] = None,
    draft: Annotated[Path | None, typer.Option(help="Where a draft goes, for you to complete and sign.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The root file system, a folder or root.img: its files, and no others, may run.")
    ] = None,
    firmware: Annotated[
        list[Path] | None, typer.Option(help="Firmware builds that may boot it, beside the known ones (repeatable).")
    ] = None,
    owner: Annotated[
        Path | None,
        typer.Option(help="Who approves states of it (PEM), where no --root says so."),
    ] = None,
    pcr: Annotated[
        list[int] | None, typer.Option(help="8, 13 or 15, where attest.pcrs asks for it, too (repeatable).")
    ] = None,
    grace: GraceLength = None,
    grace_from: GraceFrom = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict the PCR values that a boot of this image gives and, with --key, sign them as a reference set.

    docs/measured-boot.md says for each PCR whether it is predicted, known for a firmware build, or ignored. With --root
    what runs after the boot is judged as well, by the kernel's list (IMA), and what a host starts, by its log. Where
    the image has an owner, nodes have to bind their keys to the states that the owner approves.
    """
    from umec_attest.errors import ReferenceInvalid
    from umec_attest.predict import draft_of, parse_builds, predict_started, starts_applications
    from umec_attest.predict import predict as predict_folder
    from umec_attest.reference import render_draft, render_owner, render_stages
    from umec_platform.cli.files import read_file

    if root is not None:
        _check_root(folder, root)
    boards = [build for path in firmware or [] for build in parse_builds(read_file(path))]
    predicted = predict_folder(folder, boards)
    runtime, starts = None, False
    if root is None:
        owned_by = owner_of(folder, None, owner)
    else:
        with _unpacked(root) as files:
            runtime, owned_by = predict_started(folder, files), owner_of(folder, files, owner)
            starts = starts_applications(files)
    wanted = replace(draft_of(predicted, runtime, pcr or []), owner=owned_by, starts=starts)
    result = _shown(predicted)
    if draft is not None:
        values = {model: each.pcrs for model, each in wanted.models.items()}
        rendered = render_draft(wanted.pcrs, values, wanted.image_sha256)
        rendered |= {"ignored": {str(each): why for each, why in wanted.ignored.items()}} if wanted.ignored else {}
        rendered |= {} if runtime is None else {"runtime": runtime}
        rendered |= {"starts": True} if starts else {}
        rendered |= {} if owned_by is None else {"owner": render_owner(owned_by)}
        rendered |= {"stages": render_stages(wanted.stages)} if wanted.stages else {}
        draft.write_text(json.dumps(rendered, indent=2) + "\n", encoding="utf-8")
        result |= {"draft": str(draft)}
    if key is not None:
        if name is None or version is None:
            raise ReferenceInvalid("a reference set needs --name and --version")
        if owned_by is not None:
            check_name(folder, name)
        result |= sign_draft(wanted, name, version, days, key, out, grace=grace, grace_from=grace_from)
    emit(result, as_json=as_json, human=_human(result))


def _check_root(folder: Path, root: Path) -> None:
    """Refuse another root file system than that of the image; only built images say which one theirs is."""
    if (folder / "manifest.json").exists():
        from umec_images.update import check_root_file

        check_root_file(folder, root)


@contextmanager
def _unpacked(root: Path) -> Iterator[Path]:
    """Yield the root file system as a folder; an image of it is unpacked for as long as that takes."""
    if not root.is_file():
        yield root
        return
    from umec_images.nodeimage.tools import run

    with tempfile.TemporaryDirectory(prefix="umec-root-") as place:
        files = Path(place, "root")
        run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-d", str(files), str(root.absolute())])
        yield files


@refusals
def firmware(
    log: Annotated[Path, typer.Argument(help="The boot log of a machine with that firmware.")],
    name: Annotated[str, typer.Option(help="What the build is called wherever it is told of.")],
    out: Annotated[Path, typer.Option(help="Where the build goes: beside those that are there already.")],
    code: Annotated[Path | None, typer.Option(help="The firmware's file, where node images name it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take the values that a firmware alone decides from a boot log, for `umec nodeimage predict --firmware`.

    It believes the log: boot a machine whose firmware is what its maker delivered, and compare with its quote
    (`umec bootlog show LOG --pcrs FILE`).
    """
    import hashlib

    from umec_attest.bootlog import parse_boot_log, replay
    from umec_attest.errors import FirmwareUnknown
    from umec_attest.predict import FIRMWARE_PCRS, FirmwareBuild, parse_builds, render_builds
    from umec_attest.tpm.algorithms import HashAlgorithm
    from umec_platform.cli.files import read_file

    values = replay(parse_boot_log(read_file(log)), HashAlgorithm.SHA256)
    if not values.keys() >= set(FIRMWARE_PCRS):
        raise FirmwareUnknown(f"the log does not say what the firmware measured into each of the PCRs {FIRMWARE_PCRS}")
    sha256 = None if code is None else hashlib.sha256(read_file(code)).hexdigest()
    build = FirmwareBuild(name, sha256, {pcr: values[pcr] for pcr in FIRMWARE_PCRS})
    others = () if not out.exists() else parse_builds(read_file(out))
    written = render_builds([*(each for each in others if each.name != name), build])
    parse_builds(json.dumps(written).encode())
    out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    shown = {str(pcr): value.hex() for pcr, value in build.pcrs.items()}
    human = "\n".join([f"{name}: {out}", *(f"PCR {pcr:>2}  {value}" for pcr, value in shown.items())])
    emit({"firmware": str(out), "name": name, "pcrs": shown}, as_json=as_json, human=human)


def sign_draft(
    draft: "ReferenceDraft",
    name: str,
    version: int,
    days: int,
    key: str,
    out: Path | None,
    *,
    grace: str | None = None,
    grace_from: int | None = None,
) -> dict[str, Any]:
    """Sign a draft, write the set, and return what to show of it; `grace` is for versions from `grace_from` on."""
    from umec_attest.errors import ReferenceInvalid, ReferenceTooLarge
    from umec_attest.reference import pack, sign_reference_set
    from umec_core.clock import system_clock

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
        starts=draft.starts,
        owner=draft.owner,
        stages=draft.stages,
        grace=grace_of(grace, grace_from, version=version, now=now),
        key=load_signing_key(key),
    )
    target = out or Path(f"{name}.reference.json")
    target.write_bytes(envelope)
    result = {"reference": str(target), "name": name, "version": version}
    try:
        pack(envelope)
    except ReferenceTooLarge as error:
        return result | {"warning": f"{error.detail}: it is good for offline use only"}
    return result


def _shown(predicted: "PredictedPcrs") -> dict[str, Any]:
    shown: dict[str, Any] = {"image_sha256": predicted.subject_sha256, "pcrs": {"sha256": _hex(predicted.pcrs)}}
    if predicted.models:
        shown["models"] = {name: {"sha256": _hex(pcrs)} for name, pcrs in predicted.models.items()}
    if predicted.ignored:
        shown["ignored"] = {str(pcr): why for pcr, why in predicted.ignored.items()}
    return shown


def _hex(pcrs: Mapping[int, bytes]) -> dict[str, str]:
    return {str(pcr): value.hex() for pcr, value in sorted(pcrs.items())}


def _human(result: dict[str, Any]) -> str:
    lines = [f"image sha256:{result['image_sha256']}"]
    lines += [f"PCR {pcr:>2}  {value}" for pcr, value in result["pcrs"]["sha256"].items()]
    for name, pcrs in result.get("models", {}).items():
        lines += [f"firmware {name}:", *(f"PCR {pcr:>2}  {value}" for pcr, value in pcrs["sha256"].items())]
    lines += [f"PCR {pcr:>2}  ignored: {why}" for pcr, why in result.get("ignored", {}).items()]
    if "reference" in result:
        lines += signed_lines(result)
    return "\n".join(lines)


def signed_lines(result: dict[str, Any]) -> list[str]:
    """Return what to say of a set that was signed."""
    lines = [f"reference set {result['name']} version {result['version']}: {result['reference']}"]
    return lines if "warning" not in result else [*lines, f"warning: {result['warning']}"]
