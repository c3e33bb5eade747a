"""Why the gateway refuses, and how that reads in the error format of the distribution specification.

    UmecError
    ├── TenantForeign, ScopeMissing            the caller may not
    ├── TagImmutable, TagReserved              the name is taken
    ├── MemberMissing, DigestStated            the content is incomplete, or not what its name says
    ├── ManifestDamaged                        the store changed behind the gateway
    ├── ReferrersFull, UploadTooLarge, UploadRefused, Unsupported
    └── BackendUnavailable, RegistryBusy

The registry client's errors (`umec_images.oci.errors`) are used as they are.
"""

from typing import Final

from umec_core.errors import Conflict, Forbidden, Invalid, Kind, NotFound, Refused, UmecError, Unavailable
from umec_images.oci.errors import DigestMismatch

__all__ = [
    "BackendUnavailable",
    "DigestStated",
    "ManifestDamaged",
    "MemberMissing",
    "ReferrersFull",
    "RegistryBusy",
    "ScopeMissing",
    "TagImmutable",
    "TagReserved",
    "TenantForeign",
    "Unsupported",
    "UploadRefused",
    "UploadTooLarge",
    "oci_error",
]


class TenantForeign(Forbidden):
    """The repository belongs to another tenant."""

    code = "tenant-foreign"


class ScopeMissing(Forbidden):
    """The token does not carry the scope that this needs."""

    code = "token-scope"


class TagImmutable(Conflict):
    """The tag names other content already, and a tag never moves."""

    code = "tag-immutable"


class TagReserved(Forbidden):
    """The tag is where the gateway keeps referrers."""

    code = "tag-reserved"


class MemberMissing(Invalid):
    """The manifest names content that the repository does not hold."""

    code = "manifest-member-missing"


class DigestStated(Invalid):
    """The content does not have the digest that the client stated."""

    code = "digest-mismatch"


class ManifestDamaged(DigestMismatch):
    """The store names a manifest and holds other bytes, or none: never the same as a manifest that nobody pushed."""

    code = "manifest-damaged"


class ReferrersFull(Conflict):
    """The manifest has as many referrers as a list can carry."""

    code = "referrers-full"


class UploadTooLarge(Refused):
    """The upload is larger than this registry takes."""

    code = "upload-too-large"
    kind = Kind.TOO_LARGE


class UploadRefused(Invalid):
    """The store did not take the upload: out of order, ended, or unknown."""

    code = "upload-refused"


class Unsupported(NotFound):
    """There is no such operation here; nothing is deleted or moved through this door."""

    code = "operation-unsupported"


class BackendUnavailable(Unavailable):
    """The store behind the gateway does not answer, or answers with a fault of its own."""

    code = "registry-backend-unavailable"


class RegistryBusy(Unavailable):
    """So much is being handed out that there is no room to check more."""

    code = "registry-busy"


_NAMES: Final = {
    "attachments-too-many": "DENIED",
    "blob-digest": "DIGEST_INVALID",
    "blob-too-large": "SIZE_INVALID",
    "blob-unknown": "BLOB_UNKNOWN",
    "digest-mismatch": "DIGEST_INVALID",
    "manifest-damaged": "DIGEST_INVALID",
    "manifest-invalid": "MANIFEST_INVALID",
    "manifest-member-missing": "MANIFEST_BLOB_UNKNOWN",
    "manifest-unknown": "MANIFEST_UNKNOWN",
    "operation-unsupported": "UNSUPPORTED",
    "reference-invalid": "NAME_INVALID",
    "upload-refused": "BLOB_UPLOAD_INVALID",
    "upload-too-large": "SIZE_INVALID",
}
_KINDS: Final = {
    Kind.UNAUTHENTICATED: "UNAUTHORIZED",
    Kind.FORBIDDEN: "DENIED",
    Kind.CONFLICT: "DENIED",
    Kind.NOT_FOUND: "NAME_UNKNOWN",
    Kind.TOO_MANY: "TOOMANYREQUESTS",
}


def oci_error(error: UmecError) -> dict[str, list[dict[str, object]]]:
    """Return the error document of the distribution specification, with our stable code in `detail`."""
    name = _NAMES.get(error.code) or _KINDS.get(error.kind, "UNSUPPORTED")
    detail = {"code": error.code} | ({} if error.advice is None else {"advice": error.advice})
    return {"errors": [{"code": name, "message": error.detail, "detail": detail}]}
