"""OCI image manifests and indexes (image-spec 1.1): bytes in, checked value out.

Unknown members are kept by nobody and refused by nobody (the standard's rule): what counts is the bytes under a digest.
Docker's own media types (schema 2) are read as the OCI types that they became.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from umec_images.oci.errors import ManifestInvalid

__all__ = [
    "BUNDLE",
    "EMPTY",
    "EMPTY_CONTENT",
    "INDEX",
    "MANIFEST",
    "MAX_MANIFEST",
    "Descriptor",
    "Index",
    "Manifest",
    "encode",
    "parse_index",
    "parse_manifest",
    "parse_manifest_or_index",
]

MAX_MANIFEST: Final = 4 * 1024 * 1024
"""Bytes; the distribution specification asks registries to take this much, and nobody should need more."""
MAX_DESCRIPTORS: Final = 10_000
"""Layers of an image, or manifests of an index; a referrers index may grow long, memory may not."""
MAX_BLOB: Final = 1 << 40
"""Bytes a descriptor may state: beyond is a mistake, and Python's integers have no end."""

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
EMPTY_CONTENT: Final = b"{}"
MANIFEST_TYPES: Final = frozenset({MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
INDEX_TYPES: Final = frozenset({INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})

_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_MediaType = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$")
]
_Annotations = dict[str, str]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, strict=True)


class _Descriptor(_Wire):
    media_type: _MediaType
    digest: _Digest
    size: int = Field(ge=0, le=MAX_BLOB)
    artifact_type: _MediaType | None = None
    annotations: _Annotations | None = None
    data: str | None = None
    urls: list[str] = Field(default=[], max_length=0)
    """Content from elsewhere is content that nobody checked."""


class _Manifest(_Wire):
    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: _MediaType | None = None
    config: _Descriptor
    layers: list[_Descriptor] = Field(max_length=MAX_DESCRIPTORS)
    subject: _Descriptor | None = None
    annotations: _Annotations | None = None


class _Index(_Wire):
    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: _MediaType | None = None
    manifests: list[_Descriptor] = Field(max_length=MAX_DESCRIPTORS)
    subject: _Descriptor | None = None
    annotations: _Annotations | None = None


_Document = TypeVar("_Document", _Manifest, _Index)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content: its type, digest (`sha256:…`) and size in bytes.

    `data` is the content itself where it came along, which spares a request; it has that size and digest.
    """

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as the specification writes it."""
        content: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type is not None:
            content["artifactType"] = self.artifact_type
        if self.annotations:
            content["annotations"] = dict(self.annotations)
        if self.data is not None:
            content["data"] = base64.b64encode(self.data).decode()
        return content


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image, or an artifact that refers to a `subject`."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def kind(self) -> str:
        """What a referrers list calls it: its artifactType, else the type of its config."""
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def kind(self) -> str | None:
        """What a referrers list calls it."""
        return self.artifact_type


def encode(document: Mapping[str, Any]) -> bytes:
    """Return our one way to write a JSON document, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_manifest(data: bytes, *, media_type: str | None = None) -> Manifest:
    """Read an image manifest. `media_type` is what the transport said. Raises ManifestInvalid."""
    raw = _validate(_Manifest, data)
    kind = _agreed(raw.media_type, media_type, MANIFEST_TYPES, MANIFEST)
    layers = tuple(_descriptor(each) for each in raw.layers)
    subject = None if raw.subject is None else _descriptor(raw.subject)
    return Manifest(kind, _descriptor(raw.config), layers, subject, raw.artifact_type, raw.annotations or {})


def parse_index(data: bytes, *, media_type: str | None = None) -> Index:
    """Read an image index. `media_type` is what the transport said. Raises ManifestInvalid."""
    raw = _validate(_Index, data)
    kind = _agreed(raw.media_type, media_type, INDEX_TYPES, INDEX)
    manifests = tuple(_descriptor(each) for each in raw.manifests)
    subject = None if raw.subject is None else _descriptor(raw.subject)
    return Index(kind, manifests, subject, raw.artifact_type, raw.annotations or {})


def parse_manifest_or_index(data: bytes, *, media_type: str) -> Manifest | Index:
    """Read either, as its media type says. Raises ManifestInvalid."""
    if media_type in INDEX_TYPES:
        return parse_index(data, media_type=media_type)
    return parse_manifest(data, media_type=media_type)


def _agreed(stated: str | None, transport: str | None, allowed: frozenset[str], default: str) -> str:
    # The same bytes read as two kinds of document is how images were smuggled past scanners (CVE-2021-41190).
    names = {name for name in (stated, transport) if name is not None} or {default}
    if len(names) != 1 or not names <= allowed:
        raise ManifestInvalid(f"the media type is not (only) one of {sorted(allowed)}")
    return names.pop()


def _validate(model: type[_Document], data: bytes) -> _Document:
    try:
        document = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid("this is not JSON with unique names") from error
    if not isinstance(document, dict) or {"manifests", "layers"} <= document.keys():
        raise ManifestInvalid("a manifest is an object with either `layers` or `manifests`")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ManifestInvalid(f"{'.'.join(str(part) for part in first['loc'][:3])}: {first['msg']}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


def _descriptor(raw: _Descriptor) -> Descriptor:
    data = None if raw.data is None else _embedded(raw.data, raw)
    return Descriptor(raw.media_type, raw.digest, raw.size, raw.artifact_type, raw.annotations or {}, data)


def _embedded(text: str, raw: _Descriptor) -> bytes:
    """Return what is embedded in a descriptor (image-spec, descriptor: `data`), which has to be what it names."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one
        content = None
    if content is None or len(content) != raw.size or f"sha256:{hashlib.sha256(content).hexdigest()}" != raw.digest:
        raise ManifestInvalid(f"the data of the descriptor {raw.digest} is not the content that it names")
    return content
