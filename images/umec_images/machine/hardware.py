"""The board of a node as QEMU emulates it: one command line.

No hardware virtualisation is assumed. Each choice that changes what is measured is one that a verifier would see:

- q35 with SMM and secure pflash: only the firmware writes Secure Boot variables;
- no option ROM for the network card: it would be measured into PCR 2;
- the disk is the only thing to boot from, with a boot index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["PROGRAM", "Hardware", "command_line"]

PROGRAM: Final = "qemu-system-x86_64"
FIRMWARE_CONFIG: Final = "opt/umec/"
"""Prefix of files that are handed in over the firmware's configuration device; QEMU's documentation reserves opt/."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is on the board, and what is plugged in."""

    firmware: Path
    variables: Path
    disk: Path
    tpm: Path
    """Control socket of the software TPM."""
    memory: int = 1024
    """MiB."""
    processors: int = 2
    network: bool = False
    """Whether it reaches what this machine reaches; otherwise it is alone with its gateway."""
    access: str | None = None
    """A tap of this machine that is its second network; its users are there."""
    plugged_in: Path | None = None
    """A second disk, from which nothing is booted."""
    handed_in: Sequence[tuple[str, Path]] = ()
    """Files for its programs, by name: nothing measures them."""


def command_line(hardware: Hardware) -> list[str]:
    """Return QEMU's command line; the serial console is its standard output."""
    line = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    line += ["-machine", "q35,smm=on", "-accel", "tcg,thread=multi", "-cpu", "max"]
    line += ["-m", str(hardware.memory), "-smp", str(hardware.processors)]
    line += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    line += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_quoted(hardware.firmware)}"]
    line += ["-drive", f"if=pflash,unit=1,format=raw,file={_quoted(hardware.variables)}"]
    line += ["-chardev", f"socket,id=tpm-control,path={_quoted(hardware.tpm)}"]
    line += ["-tpmdev", "emulator,id=tpm,chardev=tpm-control", "-device", "tpm-tis,tpmdev=tpm"]
    line += ["-drive", f"if=none,id=disk,format=raw,file={_quoted(hardware.disk)}"]
    line += ["-device", "virtio-blk-pci,drive=disk,bootindex=1"]
    if hardware.plugged_in is not None:
        line += ["-drive", f"if=none,id=plugged-in,format=raw,file={_quoted(hardware.plugged_in)}"]
        line += ["-device", "virtio-blk-pci,drive=plugged-in"]
    line += ["-netdev", f"user,id=uplink,restrict={'off' if hardware.network else 'on'}"]
    line += ["-device", "virtio-net-pci,netdev=uplink,romfile="]
    if hardware.access is not None:
        line += ["-netdev", f"tap,id=access,ifname={_quoted(hardware.access)},script=no,downscript=no"]
        line += ["-device", "virtio-net-pci,netdev=access,romfile="]
    line += ["-device", "virtio-rng-pci"]
    line += ["-serial", "file:/dev/stdout"]
    for name, path in hardware.handed_in:
        line += ["-fw_cfg", f"name={FIRMWARE_CONFIG}{name},file={_quoted(path)}"]
    return line


def _quoted(value: Path | str) -> str:
    """A comma ends a value of QEMU's options; two of them are one."""
    return str(value).replace(",", ",,")
