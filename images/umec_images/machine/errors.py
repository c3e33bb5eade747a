"""Why a machine could not be started, watched or tampered with.

MachineError
├── ImageIncomplete     node-image-incomplete   the folder is no built node image, or for another firmware
├── MachineFailed       machine-failed          QEMU or the software TPM does not start, or ended with an error
├── MachineSilent       machine-silent          it said nothing of what was waited for in time
├── DiskUnreadable      disk-unreadable         no partition table, or no file system, where one has to be
└── TamperingRefused    tampering-refused       this image cannot be changed in that way
"""

from umec_core.errors import Invalid, Kind, Refused, UmecError, Unavailable

__all__ = ["DiskUnreadable", "ImageIncomplete", "MachineError", "MachineFailed", "MachineSilent", "TamperingRefused"]


class MachineError(UmecError):
    """Something about a machine."""

    code = "machine-error"


class ImageIncomplete(MachineError, Invalid):
    """The folder lacks a part of a built node image, or was built for another firmware than this machine has."""

    code = "node-image-incomplete"


class MachineFailed(MachineError, Unavailable):
    """QEMU or its software TPM does not start, or ended with an error."""

    code = "machine-failed"


class MachineSilent(MachineError):
    """The console did not say in time what was waited for."""

    code = "machine-silent"
    kind = Kind.TIMEOUT


class DiskUnreadable(MachineError, Invalid):
    """A disk has no partition table, or a partition no file system, that is read here."""

    code = "disk-unreadable"


class TamperingRefused(MachineError, Refused):
    """The image has nothing to change in that way."""

    code = "tampering-refused"
