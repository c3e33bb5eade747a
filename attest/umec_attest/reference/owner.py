"""The owner of an image, in its reference set: with it, node keys have to be bound to states that the owner approves.

So who signs what an image measures says, in the same breath, who approves its states. It is a public key in PEM.
"""

from typing import Annotated

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field

from umec_attest.errors import AttestError, ReferenceInvalid
from umec_attest.sealed.owners import OwnerKey, load_owner

__all__ = ["WireOwner", "parse_owner", "render_owner"]

WireOwner = Annotated[str, Field(max_length=4096)]


def parse_owner(wire: str | None) -> OwnerKey | None:
    """Return the owner of a predicate; raises `ReferenceInvalid`."""
    if wire is None:
        return None
    try:
        return load_owner(wire.encode())
    except (AttestError, UnicodeEncodeError) as error:
        raise ReferenceInvalid("its owner is no public key in PEM: RSA of 2048 bits or more, P-256 or P-384") from error


def render_owner(key: OwnerKey) -> str:
    """Return an owner as `parse_owner` reads it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
