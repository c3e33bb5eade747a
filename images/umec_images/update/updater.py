"""Put the next image into the other slot, have it tried once, and confirm it.

Order of an update; `|` is a barrier, and after a cut anywhere the disk starts what is confirmed:

1. BootNext is taken back
2. record: writing |              what is in the other slot counts for nothing
   OTHER.EFI and the labels in the slot go |
3. root file system without its label, kernel image without a name |
4. the label |                     and both are read back: the hash tree, and each byte of the kernel image
5. OTHER.EFI (one sector) |
6. record: staged |
7. BootNext
8. record: trial |

Confirming swaps the names BOOTX64.EFI and OTHER.EFI in one sector, and then notes it. Until then the old image is what
starts whenever nobody asks for something else, and its slot is not written.
"""

from dataclasses import dataclass, replace

from umec_images.nodeimage.disk import APPROVAL_AREA, approval_area
from umec_images.update.device import Area, Device
from umec_images.update.disk import BOOT, OTHER, Survey, note, survey
from umec_images.update.errors import (
    ImageOther,
    NoRoom,
    NothingOnTrial,
    NothingStaged,
    SlotDamaged,
    TrialOpen,
    WriteFailed,
)
from umec_images.update.esp import open_esp
from umec_images.update.firmware import Variables, ask_no_more, ask_once
from umec_images.update.image import Image
from umec_images.update.kernel import Kernel
from umec_images.update.phases import Outcome, begin, confirmable, settle
from umec_images.update.slots import check_root, label_root, unlabel, write_root
from umec_images.update.state import Phase, Record

__all__ = ["Plan", "carry_out", "check_room", "confirm", "leave", "plan", "settled", "stage", "try_staged"]


@dataclass(frozen=True, slots=True)
class Plan:
    """An update that is allowed and fits; nothing has been written for it."""

    seen: Survey
    image: Image
    phase: Phase
    """WRITING, or STAGED where the image is in its slot already."""
    attempt: int = 0
    """Number of the order that this is for."""


def plan(device: Device, image: Image, running: bytes | None, *, again: bool = False, attempt: int = 0) -> Plan:
    """Check whether an image may be put on a disk, and whether it fits; write nothing.

    `running` is the root hash of what runs; None for a disk whose node is switched off. What failed here is taken with
    `again`, or for an `attempt` that is higher than the one that failed.

    Raises what `begin` and `survey` raise, SlotDamaged where the confirmed image is not whole, NoRoom.
    """
    seen = survey(device)
    running = seen.confirmed.root_hash if running is None else running
    again = again or attempt > seen.record.attempt
    phase = begin(seen.record, seen.confirmed, running, image.kernel, image.manifest, again=again)
    check_root(seen.layout.roots[seen.slot].area, seen.confirmed)
    if seen.other != image.kernel or not _holds(seen.target, image.kernel):
        phase = Phase.WRITING
    check_room(seen, kernel=len(image.kernel_image), root=image.root_size, approved=bool(image.approval))
    return Plan(seen, image, phase, attempt)


def check_room(seen: Survey, *, kernel: int, root: int, approved: bool) -> None:
    """Check that a kernel image and a root file system of so many bytes fit where they belong. Raises NoRoom."""
    slot = seen.target.size - (APPROVAL_AREA if approved else 0)
    if root > slot:
        raise NoRoom(f"the root file system has {root} bytes, and the slot {slot}")
    room = seen.esp.room(OTHER)
    if kernel > room:
        raise NoRoom(f"the kernel image has {kernel} bytes, and the EFI partition room for {room}")


def carry_out(planned: Plan, variables: Variables | None) -> Record:
    """Write the image, and ask the firmware to try it at the next start.

    Without `variables` it is staged alone. Raises what `stage` raises; running it again goes on.
    """
    noted = stage(planned, variables)
    if variables is None:
        return noted
    ask_once(variables, planned.seen.layout.esp, OTHER)
    return note(planned.seen, Phase.TRIAL)


def stage(planned: Plan, variables: Variables | None) -> Record:
    """Write the image into the other slot; it starts when `try_staged` asks for it.

    Raises TrialOpen, ImageOther (what came is not the root file system that the manifest names), WriteFailed,
    VariablesUnusable.
    """
    seen, image = planned.seen, planned.image
    record = Record(
        image=image.kernel.name, version=image.kernel.version, manifest=image.manifest, attempt=planned.attempt
    )
    if planned.phase is Phase.WRITING:
        if variables is None and seen.record.phase is Phase.TRIAL:
            raise TrialOpen(
                "the firmware has been asked to start what would be written over", advice="take it back: --variables"
            )
        if variables is not None:
            ask_no_more(variables)
        note(seen, Phase.WRITING, record)
        _write(seen, image)
    return note(seen, Phase.STAGED, record)


def try_staged(device: Device, variables: Variables, manifest: str) -> Record:
    """Ask the firmware to start the image with this manifest (SHA-256, hex) once: it is in the other slot, whole.

    Raises NothingStaged, VariablesUnusable, and what `survey` raises.
    """
    seen = survey(device)
    if seen.record.phase is not Phase.STAGED or seen.record.manifest != manifest or seen.other is None:
        raise NothingStaged(f"no image with the manifest {manifest} waits for its trial: {seen.record.phase.value}")
    ask_once(variables, seen.layout.esp, OTHER)
    return note(seen, Phase.TRIAL)


def leave(device: Device, running: bytes, why: str) -> Record:
    """Write down why the image that is on trial leaves it; the next start is the confirmed image's.

    Raises NothingOnTrial, and what `survey` raises.
    """
    seen = survey(device)
    if settle(seen.record, seen.confirmed, seen.other, running)[1] is not Outcome.ON_TRIAL:
        raise NothingOnTrial(f"version {seen.confirmed.version} runs, and is confirmed")
    return note(seen, Phase.TRIAL, replace(seen.record, why=why))


def settled(device: Device, running: bytes) -> tuple[Survey, Outcome]:
    """Note what an update has come to, when a node has started. `running` is the root hash of what runs.

    Raises what `survey` raises, NothingOnTrial.
    """
    seen = survey(device)
    phase, outcome = settle(seen.record, seen.confirmed, seen.other, running)
    if phase is not seen.record.phase:
        note(seen, phase)
    return survey(device), outcome


def confirm(device: Device, running: bytes) -> Survey:
    """Make the image that is on trial the one that starts. Do it when the node is trusted, and not before.

    Raises NothingOnTrial, SlotDamaged, and what `survey` raises.
    """
    seen = survey(device)
    if confirmable(seen.record, seen.confirmed, seen.other, running) and seen.other is not None:
        check_root(seen.target, seen.other)
        seen.esp.swap(BOOT, OTHER)
        device.flush()
    note(seen, Phase.NONE)
    return survey(device)


def _write(seen: Survey, image: Image) -> None:
    device, target = seen.device, seen.target
    if OTHER in seen.esp.files:
        seen.esp.remove(OTHER)
    unlabel(target, [each for each in (seen.confirmed, seen.other, image.kernel) if each is not None])
    device.flush()
    written = write_root(target, image.chunks(), image.kernel)
    if (written.sha256, written.size) != (image.root_sha256, image.root_size):
        raise ImageOther(f"the root file system came with SHA-256 {written.sha256}, and not {image.root_sha256}")
    if image.root_size <= target.size - APPROVAL_AREA:  # also where there is none: that of another image goes
        target.write(target.size - APPROVAL_AREA, approval_area(image.approval))
    esp = open_esp(seen.esp.area)
    clusters = esp.store(image.kernel_image)
    device.flush()
    label_root(target, written, image.kernel)
    device.flush()
    if esp.fetch(clusters)[: len(image.kernel_image)] != image.kernel_image or not _holds(target, image.kernel):
        raise WriteFailed(
            "the disk does not hold what was written, or root.img is of another kernel image",
            advice="build the image anew; if that does not help, the disk is at its end",
        )
    esp.add(OTHER, BOOT, clusters, len(image.kernel_image))
    device.flush()


def _holds(area: Area, kernel: Kernel) -> bool:
    try:
        check_root(area, kernel)
    except SlotDamaged:
        return False
    return True
