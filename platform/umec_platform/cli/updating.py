"""`umec nodeimage update` and what belongs to it: the next image onto a node's disk, tried once, then confirmed."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_images.update import Plan, Survey, Variables

__all__ = ["update", "update_confirm", "update_settle", "update_status"]

Disk = Annotated[Path, typer.Argument(help="The node's disk: a block device, or disk.img of a machine that is off.")]
Running = Annotated[
    Path, typer.Option("--running", help="The command line of what runs; the node's own is /proc/cmdline.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
COMMAND_LINE = Path("/proc/cmdline")


@refusals
def update(
    disk: Disk,
    folder: Annotated[Path, typer.Argument(help="The next image: manifest.json, uki.efi and root.img.")],
    manifest: Annotated[str, typer.Option(help="SHA-256 of its manifest.json, from whom you trust: sha256:HEX.")],
    variables: Annotated[
        Path | None,
        typer.Option(help="The firmware's variables: /sys/firmware/efi/efivars, or vars.fd of a machine that is off."),
    ] = None,
    running: Annotated[
        Path | None,
        typer.Option(help="The command line of what runs, if it runs of this disk (a block device: /proc/cmdline)."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Try an image again that failed on this node.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put the next image into the other slot of a node's disk, and ask its firmware to start it once.

    Whatever happens, the image that runs now stays what is started, until `update-confirm`: a power cut at any moment,
    or an image that does not start, leaves the node with it. Without --variables the image is staged, and not tried.
    """
    from umec_images.update import carry_out, open_disk, plan, verify_image

    image = verify_image(folder, _hex(manifest))
    with open_disk(disk, writing=not dry_run) as device:
        planned = plan(device, image, _runs(disk, running), again=again)
        shown = _plan(planned)
        if not dry_run:
            shown["phase"] = carry_out(planned, _variables(variables)).phase.value
    emit(shown, as_json=as_json, human=_said(shown, dry_run=dry_run))


@refusals
def update_status(disk: Disk, as_json: Json = False) -> None:
    """Show which image a node's disk starts, what is in its other slot, and what an update has come to."""
    from umec_images.update import open_disk, survey

    with open_disk(disk, writing=False) as device:
        shown = _survey(survey(device))
    emit(shown, as_json=as_json, human="\n".join(_lines(shown)))


@refusals
def update_settle(disk: Disk, running: Running = COMMAND_LINE, as_json: Json = False) -> None:
    """Note and say what an update has come to: on the node, once it has started."""
    from umec_images.update import open_disk, settled

    root = _root(running)
    with open_disk(disk, writing=True) as device:
        seen, outcome = settled(device, root)
        shown = {"outcome": outcome.value, **_survey(seen)}
    emit(shown, as_json=as_json, human="\n".join([shown["outcome"], *_lines(shown)]))


@refusals
def update_confirm(disk: Disk, running: Running = COMMAND_LINE, as_json: Json = False) -> None:
    """Make the image that is on trial the one that starts: when the verifier trusts the node, and not before."""
    from umec_images.update import confirm, open_disk

    root = _root(running)
    with open_disk(disk, writing=True) as device:
        shown = _survey(confirm(device, root))
    emit(shown, as_json=as_json, human="\n".join(_lines(shown)))


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:").lower()


def _runs(disk: Path, command_line: Path | None) -> bytes | None:
    """Return the root hash of what runs of a disk, or None for the disk of a machine that is off."""
    from umec_images.update.errors import DiskUnfit

    if command_line is not None:
        return _root(command_line)
    if disk.is_block_device():
        with contextlib.suppress(DiskUnfit):  # this machine runs of something else
            return _root(COMMAND_LINE)
    return None


def _root(command_line: Path) -> bytes:
    from umec_images.update import command_line_root
    from umec_platform.cli.files import read_file

    return command_line_root(read_file(command_line).decode(errors="replace"))


def _variables(path: Path | None) -> "Variables | None":
    from umec_images.update import EfiVariables
    from umec_images.update.store import StoreVariables

    if path is None:
        return None
    return EfiVariables(path) if path.is_dir() else StoreVariables(path)


def _plan(planned: "Plan") -> dict[str, Any]:
    image = planned.image
    return {
        "image": image.kernel.name,
        "from": planned.seen.confirmed.version,
        "to": image.kernel.version,
        "slot": planned.seen.free,
        "written": planned.phase.value == "writing",
        "sizes": {"uki.efi": len(image.kernel_image), "root.img": image.root_size},
        "manifest": f"sha256:{image.manifest}",
        "phase": planned.seen.record.phase.value,
    }


def _said(shown: dict[str, Any], *, dry_run: bool) -> str:
    what = f"{shown['image']}: version {shown['from']} to {shown['to']}, in the slot {shown['slot']}"
    if dry_run:
        return f"{what}: allowed, and it fits; nothing was written"
    if shown["phase"] == "trial":
        return f"{what}: the next start is its trial"
    return f"{what}: staged; the firmware has not been asked to try it (--variables)"


def _survey(seen: "Survey") -> dict[str, Any]:
    other = None if seen.other is None else {"version": seen.other.version, "slot": seen.free}
    record = seen.record
    return {
        "image": seen.confirmed.name,
        "confirmed": {"version": seen.confirmed.version, "slot": seen.slot},
        "other": other,
        "phase": record.phase.value,
        "update": {"version": record.version, "manifest": f"sha256:{record.manifest}"} if record.manifest else None,
    }


def _lines(shown: dict[str, Any]) -> list[str]:
    lines = [f"{shown['image']} version {shown['confirmed']['version']} starts, from {shown['confirmed']['slot']}"]
    if shown["other"] is not None:
        lines.append(f"version {shown['other']['version']} is in {shown['other']['slot']}")
    if shown["update"] is not None:
        lines.append(f"update to version {shown['update']['version']}: {shown['phase']}")
    return lines
