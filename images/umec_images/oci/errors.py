"""Why an OCI operation fails.

    UmecError
    ├── ReferenceInvalid, ManifestInvalid, VersionInvalid malformed
    ├── DigestMismatch, LayerDigest, BlobTooLarge         content is not what its name says
    ├── RegistryRefused, ManifestUnknown, BlobUnknown     what a registry answered
    └── RegistryUnavailable

Codes are stable; the gateway uses the same ones towards its clients.
"""

from umec_core.errors import Invalid, Kind, NotFound, Refused, Unavailable

__all__ = [
    "BlobTooLarge",
    "BlobUnknown",
    "DigestMismatch",
    "LayoutInvalid",
    "ManifestInvalid",
    "ManifestUnknown",
    "ReferenceInvalid",
    "RegistryRefused",
    "RegistryUnavailable",
    "VersionInvalid",
]


class ReferenceInvalid(Invalid):
    """This names no repository, tag or digest."""

    code = "reference-invalid"


class ManifestInvalid(Invalid):
    """This is no OCI image manifest or index."""

    code = "manifest-invalid"


class VersionInvalid(Invalid):
    """This is no semantic version."""

    code = "version-invalid"


class LayoutInvalid(Invalid):
    """This folder is no OCI image layout."""

    code = "layout-invalid"


class DigestMismatch(Refused):
    """The bytes do not have the digest by which they were asked for."""

    code = "blob-digest"


class BlobTooLarge(Refused):
    """The content is larger than allowed, or than its descriptor says."""

    code = "blob-too-large"
    kind = Kind.TOO_LARGE


class BlobUnknown(NotFound):
    """The repository does not hold this blob."""

    code = "blob-unknown"


class ManifestUnknown(NotFound):
    """The repository does not hold this manifest."""

    code = "manifest-unknown"


class RegistryRefused(Refused):
    """The registry refused; `code` is its own stable code where it gave one, else `registry-refused`."""

    code = "registry-refused"

    def __init__(self, detail: str, *, status: int, refusal: str | None = None, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.status = status
        if refusal is not None:
            self.code = refusal  # type: ignore[misc]  # the code of another process, known only now


class RegistryUnavailable(Unavailable):
    """The registry does not answer."""

    code = "registry-unavailable"
