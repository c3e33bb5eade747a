"""A node as a machine that can be switched on here: QEMU, OVMF with Secure Boot, a software TPM.

    folder       what is booted: a folder that `umec nodeimage build` made
    node         the machine's own disk, variables and TPM
    hardware     the board, as QEMU's command line
    machine      switched on, watched, switched off, or its power cut
    console      bytes of a serial line to text
    progress     how far a boot came, by what the console says
    tamper       what somebody with the open box does
    documented   what has to become of it
    partitions, esp, ukichange   disks and kernel images, as an attacker changes them

Nothing here is trusted by anybody: it is for tests, and for trying images out.
"""

from umec_images.machine.documented import DOCUMENTED, Documented, faults
from umec_images.machine.folder import NodeImageFolder, open_folder
from umec_images.machine.machine import Line, Machine
from umec_images.machine.node import install
from umec_images.machine.progress import End, Progress, Stage
from umec_images.machine.tamper import Attacker, tamper

__all__ = [
    "DOCUMENTED",
    "Attacker",
    "Documented",
    "End",
    "Line",
    "Machine",
    "NodeImageFolder",
    "Progress",
    "Stage",
    "faults",
    "install",
    "open_folder",
    "tamper",
]
