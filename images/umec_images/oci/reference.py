"""Names: `TENANT/NAME` repositories, tags, sha256 digests, and the references that combine them.

    [HOST/]TENANT/NAME[:TAG][@sha256:HEX]

Grammar: OCI distribution 1.1, narrowed to two components (the first is the tenant) and to SHA-256.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from umec_images.oci.errors import ReferenceInvalid

__all__ = ["Reference", "check_digest", "check_repository", "check_tag", "digest_of", "parse_reference", "tenant_of"]

MAX_REPOSITORY: Final = 255
"""Characters: the limit that registries share with file systems."""

_REPOSITORY: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*\Z", re.ASCII)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)
_HOST: Final = re.compile(r"[a-zA-Z0-9.-]{1,253}(?::[0-9]{1,5})?\Z|\[[0-9a-f:]{2,39}\](?::[0-9]{1,5})?\Z", re.ASCII)


def digest_of(content: bytes) -> str:
    """Return `sha256:HEX` of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_repository(name: str) -> str:
    """Return `name` if it is TENANT/NAME; raises ReferenceInvalid."""
    if len(name) > MAX_REPOSITORY or _REPOSITORY.match(name) is None:
        raise ReferenceInvalid("a repository is named TENANT/NAME in lower case letters, digits and single separators")
    return name


def check_tag(tag: str) -> str:
    """Return `tag` if it is one; raises ReferenceInvalid."""
    if _TAG.match(tag) is None:
        raise ReferenceInvalid(
            "a tag has 1 to 128 letters, digits, `_`, `.` and `-` and begins with none of the last two"
        )
    return tag


def check_digest(digest: str) -> str:
    """Return `digest` if it is `sha256:` with 64 lower case hex digits; raises ReferenceInvalid."""
    if _DIGEST.match(digest) is None:
        raise ReferenceInvalid("a digest is written sha256: and 64 lower case hexadecimal digits")
    return digest


def tenant_of(repository: str) -> str:
    """Return the tenant that owns a (checked) repository."""
    return repository.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; at least one of `tag` and `digest` is set only if the text had it."""

    repository: str
    host: str | None = None
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        host = "" if self.host is None else f"{self.host}/"
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{host}{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Read `[HOST/]TENANT/NAME[:TAG][@DIGEST]`; raises ReferenceInvalid."""
    rest, at, digest = text.partition("@")
    path, _, last = rest.rpartition("/")
    name, colon, tag = last.partition(":")
    parts = [*path.split("/"), name] if path else [name]
    host = parts.pop(0) if len(parts) == 3 else None
    if host is not None and _HOST.match(host) is None:
        raise ReferenceInvalid("the host before the repository is malformed")
    return Reference(
        repository=check_repository("/".join(parts)),
        host=host,
        tag=check_tag(tag) if colon else None,
        digest=check_digest(digest) if at else None,
    )
