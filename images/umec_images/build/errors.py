"""Why an image cannot be built.

    UmecError
    ├── SpecInvalid          the description of the image
    ├── PackageMissing, DistributionMissing, PackageFileMissing    what it names is not (wholly) installed here
    ├── FileKindRefused      a file that has no place in an image
    └── SigningFailed        the authority signed nothing

All are the builder's to mend.
"""

from umec_core.errors import Invalid, NotFound, Refused

__all__ = [
    "DistributionMissing",
    "FileKindRefused",
    "PackageFileMissing",
    "PackageMissing",
    "SigningFailed",
    "SpecInvalid",
]


class SpecInvalid(Invalid):
    """The description of the image has faults."""

    code = "image-spec-invalid"


class PackageMissing(NotFound):
    """A Debian package, or one that it depends on, is not installed on this machine."""

    code = "package-missing"


class PackageFileMissing(NotFound):
    """A file that its package installed is gone."""

    code = "package-file-missing"


class DistributionMissing(NotFound):
    """A Python distribution is not installed in this environment."""

    code = "distribution-missing"


class FileKindRefused(Refused):
    """Devices, sockets and pipes have no place in an image."""

    code = "file-kind-refused"


class SigningFailed(Refused):
    """The signing authority gave no signature."""

    code = "signing-failed"
