"""Why a node image is not updated.

UpdateError
├── ManifestOther        update-manifest-other     the manifest has another digest than was asked for
├── ImageOther           update-image-other        a file is missing or not what the manifest says, or another image's
├── ImageOlder           update-image-older        its version is not higher than that of the node
├── ImageFailed          update-image-failed       it was tried on this node, and the node fell back
├── DiskUnfit            update-disk-unfit         the disk cannot be read, or `umec nodeimage build` lays none out so
├── DiskBusy             update-disk-busy          another update of this disk goes on
├── NoRoom               update-no-room            the image does not fit into the slot, or the EFI partition
├── SlotDamaged          update-slot-damaged       what runs now is damaged on disk: nothing else is overwritten
├── WriteFailed          update-write-failed       the disk does not take, or not give back, what was written
├── TrialOpen            update-trial-open         an image is on trial; the other slot is what the node falls back to
├── NothingOnTrial       update-nothing-on-trial   what runs is not on trial
├── NothingStaged        update-nothing-staged     no such image waits for its trial
├── SignatureOther       update-signature-other    no certificate of this firmware's db signed the kernel image
├── RequestInvalid       update-request-invalid    what the agent says is no request, or it ended in the middle
├── UserOther            update-user-other         it is not the node's agent that asks
├── ImageCurrent         update-image-current      this very image is what the node starts already
└── VariablesUnusable    firmware-variables-unusable
"""

from umec_core.errors import Conflict, Forbidden, Invalid, Refused, UmecError, Unavailable

__all__ = [
    "DiskBusy",
    "DiskUnfit",
    "ImageCurrent",
    "ImageFailed",
    "ImageOlder",
    "ImageOther",
    "ManifestOther",
    "NoRoom",
    "NothingOnTrial",
    "NothingStaged",
    "RequestInvalid",
    "SignatureOther",
    "SlotDamaged",
    "TrialOpen",
    "UpdateError",
    "UserOther",
    "VariablesUnusable",
    "WriteFailed",
]


class UpdateError(UmecError):
    """Something about updating a node image."""

    code = "update-error"


class ManifestOther(UpdateError, Refused):
    """The manifest has another digest than was asked for, or is none."""

    code = "update-manifest-other"


class ImageOther(UpdateError, Refused):
    """A file of the image is missing or has another digest than its manifest says, or the image is another one."""

    code = "update-image-other"


class ImageOlder(UpdateError, Refused):
    """The version of the image is not higher than that of the node."""

    code = "update-image-older"


class ImageFailed(UpdateError, Refused):
    """This very image was tried on this node, and the node fell back."""

    code = "update-image-failed"


class DiskUnfit(UpdateError, Invalid):
    """The disk cannot be read, or is not laid out as the build lays one out."""

    code = "update-disk-unfit"


class DiskBusy(UpdateError, Unavailable):
    """Another update of this disk goes on."""

    code = "update-disk-busy"


class NoRoom(UpdateError, Refused):
    """A part of the image does not fit where it belongs."""

    code = "update-no-room"


class SlotDamaged(UpdateError, Refused):
    """The image that the node starts is damaged on its disk."""

    code = "update-slot-damaged"


class WriteFailed(UpdateError, Unavailable):
    """The disk does not take what is written, or does not give it back."""

    code = "update-write-failed"


class TrialOpen(UpdateError, Conflict):
    """An image is on trial, and the other slot holds what the node falls back to."""

    code = "update-trial-open"


class NothingOnTrial(UpdateError, Conflict):
    """What runs is not on trial."""

    code = "update-nothing-on-trial"


class NothingStaged(UpdateError, Conflict):
    """No such image waits for its trial."""

    code = "update-nothing-staged"


class SignatureOther(UpdateError, Refused):
    """The kernel image is not signed as the build signs, by a certificate of the firmware's db."""

    code = "update-signature-other"


class RequestInvalid(UpdateError, Invalid):
    """What the agent says is no request, or it ended in the middle."""

    code = "update-request-invalid"


class ImageCurrent(UpdateError, Conflict):
    """This very image is what the node starts already."""

    code = "update-image-current"


class UserOther(UpdateError, Forbidden):
    """It is not the node's agent that asks."""

    code = "update-user-other"


class VariablesUnusable(UpdateError, Invalid):
    """The firmware's variables cannot be read or written."""

    code = "firmware-variables-unusable"
