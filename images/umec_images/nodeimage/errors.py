"""Why a node image cannot be built.

    UmecError
    ├── RecipeInvalid        recipe-invalid          the recipe has faults; all are named
    ├── ToolMissing          tool-missing            a program or file of a Debian package that is not here
    ├── ToolFailed           tool-failed             a program of the build failed
    ├── PackageUnknown       package-unknown         nothing in the sources has this name
    ├── PackageNotLocked     package-not-locked      the recipe wants what the lock does not name
    ├── PackageChanged       package-changed         what came has another digest than the lock, or the sources, say
    ├── LockInvalid          packages-lock-invalid
    ├── ContentRefused       image-content-refused   a file that has no place in an image
    ├── KernelUnmeasured     kernel-unmeasured       its TPM driver or IMA would start too late to measure
    ├── ModuleMissing        kernel-module-missing
    ├── UkiInvalid           uki-invalid             the stub is none, or has no room
    ├── DiskTooSmall         disk-too-small          a part of the image does not fit where it belongs
    ├── PapersInvalid        node-image-manifest-invalid   manifest.json is none
    ├── RootOther            node-image-root-other   a root file system that the kernel image does not open
    ├── TargetTaken          image-folder-taken      the folder of the image is there, and is something else
    └── KeysInvalid          image-keys-invalid      Secure Boot keys: missing, or not those of their certificates

All are the builder's to mend.
"""

from umec_core.errors import Conflict, Invalid, NotFound, Refused

__all__ = [
    "ContentRefused",
    "DiskTooSmall",
    "KernelUnmeasured",
    "KeysInvalid",
    "LockInvalid",
    "ModuleMissing",
    "PackageChanged",
    "PackageNotLocked",
    "PackageUnknown",
    "PapersInvalid",
    "RecipeInvalid",
    "RootOther",
    "TargetTaken",
    "ToolFailed",
    "ToolMissing",
    "UkiInvalid",
]


class RecipeInvalid(Invalid):
    """The recipe has faults."""

    code = "recipe-invalid"


class PapersInvalid(Invalid):
    """The manifest.json of a node image is missing or malformed."""

    code = "node-image-manifest-invalid"


class RootOther(Refused):
    """The root file system is not the one whose hash is in the signed command line of the image."""

    code = "node-image-root-other"


class ToolMissing(NotFound):
    """A program or a file that a Debian package brings is not on this machine."""

    code = "tool-missing"


class ToolFailed(Refused):
    """A program that the build uses failed."""

    code = "tool-failed"


class PackageUnknown(NotFound):
    """No source has a package that the recipe names or that one of them depends on."""

    code = "package-unknown"


class PackageNotLocked(Refused):
    """The recipe wants a package that the lock does not name."""

    code = "package-not-locked"


class PackageChanged(Refused):
    """A package has another digest than was promised."""

    code = "package-changed"


class LockInvalid(Invalid):
    """The file is no lock of packages."""

    code = "packages-lock-invalid"


class ContentRefused(Refused):
    """A file of a package has no place in an image."""

    code = "image-content-refused"


class KernelUnmeasured(Refused):
    """The kernel has no TPM driver or no IMA from its first moment on: what it starts would not be measured."""

    code = "kernel-unmeasured"


class ModuleMissing(NotFound):
    """The kernel package has no module of this name."""

    code = "kernel-module-missing"


class UkiInvalid(Invalid):
    """The stub is no PE image that sections can be added to."""

    code = "uki-invalid"


class DiskTooSmall(Refused):
    """A part of the image does not fit where it belongs."""

    code = "disk-too-small"


class TargetTaken(Conflict):
    """The folder that is to become the image is there, and is no image."""

    code = "image-folder-taken"


class KeysInvalid(Invalid):
    """Secure Boot keys are missing, malformed, or not those of their certificates."""

    code = "image-keys-invalid"
