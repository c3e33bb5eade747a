"""Environments: what the values of a triple are about."""

import re
from dataclasses import dataclass
from typing import Any, Final

from cbor2 import CBORTag

from umec_attest.corim.errors import CorimInvalid
from umec_attest.corim.shapes import array, mapping, tagged
from umec_attest.reference.models import MODEL_NAME

__all__ = ["Environment", "attestation_key", "environment"]

_UUID, _OID, _UEID, _KEY, _BYTES = 37, 111, 550, 554, 560
_SHA256_SIZE: Final = 32
_UUID_SIZE, _UEID_SIZE = 16, 33


@dataclass(frozen=True, slots=True)
class Environment:
    """A class of devices: its identifier as (tag, bytes), its vendor, the model whose firmware the values are of."""

    class_id: tuple[int, bytes] | None
    vendor: str | None
    model: str | None

    @property
    def image_sha256(self) -> str | None:
        """The digest (hex) of a node image, as our own CoRIMs name the class."""
        match self.class_id:
            case (tag, digest) if tag == _BYTES and len(digest) == _SHA256_SIZE:
                return digest.hex()
        return None


def environment(value: object) -> Environment:
    """Return the class that reference values are of; one instance, a group or a layer is refused."""
    found = mapping(value, "an environment", needed=(0,), refused=(1, 2))
    named = mapping(found[0], "a class", known=(0, 1, 2), refused=(3, 4))
    if not named:
        raise CorimInvalid("a class without a name")
    model = _text(named.get(2), "a model")
    if model is not None and re.fullmatch(MODEL_NAME, model) is None:
        raise CorimInvalid(f"the model {model!r} is none that a reference set can name"[:200])
    return Environment(_class_id(named.get(0)), _text(named.get(1), "a vendor"), model)


def attestation_key(record: object) -> None:
    """Check a triple of Parsec's profile: one key of one instance (a UEID, or bytes) of a class (a UUID)."""
    parts = array(record, "a key triple", size=2)
    found = mapping(parts[0], "an environment", needed=(0, 1), refused=(2,))
    named = mapping(found[0], "a class", needed=(0,), known=(1, 2), refused=(3, 4))
    _sized(tagged(named[0], _UUID, "the id of a class"), _UUID_SIZE, "a UUID")
    instance = found[1]
    if not isinstance(instance, CBORTag) or instance.tag not in {_UEID, _BYTES}:
        raise CorimInvalid("an instance is a UEID or bytes")
    _sized(instance.value, _UEID_SIZE, "an instance")
    (key,) = array(parts[1], "the keys", size=1)
    if not isinstance(tagged(key, _KEY, "a key"), str):
        raise CorimInvalid("a key is text")


def _class_id(value: object) -> tuple[int, bytes] | None:
    if value is None:
        return None
    if not isinstance(value, CBORTag) or value.tag not in {_UUID, _OID, _BYTES} or not isinstance(value.value, bytes):
        raise CorimInvalid("the id of a class is a UUID, an OID or bytes")
    return value.tag, value.value


def _sized(value: Any, size: int, what: str) -> None:  # noqa: ANN401 - decoded CBOR
    if not isinstance(value, bytes) or len(value) != size:
        raise CorimInvalid(f"{what} has {size} bytes")


def _text(value: object, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise CorimInvalid(f"{what} is text")
    return value
