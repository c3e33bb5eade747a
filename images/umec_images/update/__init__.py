"""Updating a node: the next image into the other slot, one trial, and back by itself if it does not come well.

    image      the next image, verified by the digest of its manifest
    disk       what is on a node's disk
    phases     the state machine; `state` keeps what it has come to
    updater    the order in which a disk is written
    esp, slots, layout, device   EFI partition, slots for root file systems, partitions, bytes
    kernel     what a signed kernel image says of itself
    firmware, store   asking the firmware for one start of another image; `store` is for machines that are off
    secureboot        whose signature counts for the firmware of this machine
    node, keeper      on a running node: the program that does this as root, for an agent that is not
    request, status, trial   what the agent asks for, what it is told, and when a trial ends

A node carries these modules and what they import: nothing of what builds, and no library but for signatures.

After a power cut anywhere a node starts an image that is whole. Why it is done this way:
docs/decisions/0009-updates-swap-two-names.md.
"""

from umec_images.update.device import Device, open_disk
from umec_images.update.disk import Survey, survey
from umec_images.update.firmware import EfiVariables, Variables
from umec_images.update.image import Image, check_root_file, verify_image
from umec_images.update.kernel import Kernel, command_line_root, read_kernel
from umec_images.update.phases import Outcome
from umec_images.update.state import Phase, Record
from umec_images.update.updater import Plan, carry_out, confirm, plan, settled, stage, try_staged

__all__ = [
    "Device",
    "EfiVariables",
    "Image",
    "Kernel",
    "Outcome",
    "Phase",
    "Plan",
    "Record",
    "Survey",
    "Variables",
    "carry_out",
    "check_root_file",
    "command_line_root",
    "confirm",
    "open_disk",
    "plan",
    "read_kernel",
    "settled",
    "stage",
    "survey",
    "try_staged",
    "verify_image",
]
