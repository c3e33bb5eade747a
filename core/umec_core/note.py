r"""Checkpoints of a log as C2SP signed notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

    ORIGIN \n SIZE \n base64(ROOT) \n \n — NAME base64(key id || signature) \n

Ed25519 is type 0x01 of the signed note: key id = SHA-256(name || 0x0A || 0x01 || key)[:4]. For ECDSA P-256 with
SHA-256 (signature in DER) the key id is SHA-256(SubjectPublicKeyInfo)[:4], as the public Sigstore logs do.

    NoteError
    ├── NoteMalformed    note-malformed
    ├── NoteOrigin       note-origin
    └── NoteSignature    note-signature-invalid
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_core.errors import UmecError

__all__ = [
    "Checkpoint",
    "NoteError",
    "NoteMalformed",
    "NoteOrigin",
    "NoteSignature",
    "sign_checkpoint",
    "verify_checkpoint",
]

SigningKey = Ed25519PrivateKey | EllipticCurvePrivateKey
VerifyingKey = Ed25519PublicKey | EllipticCurvePublicKey

MAX_NOTE: Final = 64 * 1024
"""Characters; a checkpoint has some 200, each cosigner adds some 150."""

MAX_SIGNATURES: Final = 64
ED25519: Final = b"\x01"
ROOT_SIZE: Final = 32
ID_SIZE: Final = 4
NAME: Final = re.compile(r"[^\s+]+")
SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class NoteError(UmecError):
    """A text is not a checkpoint of the log."""

    code = "note-invalid"


class NoteMalformed(NoteError):
    """The text is not a signed note that carries a checkpoint."""

    code = "note-malformed"


class NoteOrigin(NoteError):
    """The checkpoint is of another log."""

    code = "note-origin"


class NoteSignature(NoteError):
    """The checkpoint is not signed by the log's key."""

    code = "note-signature-invalid"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log has committed to."""

    origin: str
    size: int
    root: bytes


def sign_checkpoint(origin: str, size: int, root: bytes, key: SigningKey) -> str:
    """Return the signed note of a checkpoint; the signer's name is the origin. Raises `NoteMalformed`."""
    if NAME.fullmatch(origin) is None:
        raise NoteMalformed("the origin of a log is one word without plus signs")
    if size < 0 or len(root) != ROOT_SIZE:
        raise NoteMalformed("a checkpoint has a size and a root of 32 bytes")
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(text.encode())
    else:
        signature = key.sign(text.encode(), ECDSA(SHA256()))
    line = base64.b64encode(_key_id(origin, key.public_key()) + signature).decode()
    return f"{text}\n— {origin} {line}\n"


def verify_checkpoint(text: str, origin: str, key: VerifyingKey) -> Checkpoint:
    """Return the checkpoint of a note that the log's key has signed; raises a `NoteError`.

    Signatures by others (cosigners) are allowed and ignored, extension lines after the root are kept signed and unread.
    """
    body, signatures = _parse(text)
    lines = body.split("\n")  # it ends with one, so there is a second line, be it empty
    if SIZE.fullmatch(lines[1]) is None:
        raise NoteMalformed("a checkpoint has a line for its origin, its size and its root")
    if lines[0] != origin:
        raise NoteOrigin(f"the checkpoint is of {lines[0][:100]!r}, expected {origin!r}")
    root = _decode(lines[2])
    if len(root) != ROOT_SIZE:
        raise NoteMalformed("the root of a checkpoint has 32 bytes")
    wanted = _key_id(origin, key)
    ours = [blob[ID_SIZE:] for name, blob in signatures if name == origin and blob[:ID_SIZE] == wanted]
    if not ours:
        raise NoteSignature("the checkpoint carries no signature by the key of the log")
    for signature in ours:
        _check(key, signature, body.encode())
    return Checkpoint(origin, int(lines[1]), root)


def _parse(text: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Split a note into the signed text (with its last newline) and its signatures as (name, key id || signature)."""
    body, separator, tail = text.rpartition("\n\n")
    if len(text) > MAX_NOTE or not separator or not tail.endswith("\n"):
        raise NoteMalformed("a signed note is a text, an empty line and lines of signatures")
    if any(character < " " and character != "\n" for character in text):
        raise NoteMalformed("a signed note has no control characters")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteMalformed(f"a note has at most {MAX_SIGNATURES} signatures")
    return body + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or NAME.fullmatch(parts[1]) is None:
        raise NoteMalformed("a line of signature is a dash, a name and base64")
    blob = _decode(parts[2])
    if len(blob) <= ID_SIZE:
        raise NoteMalformed("a signature is missing behind its key id")
    return parts[1], blob


def _decode(value: str) -> bytes:
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise NoteMalformed("a value is not base64") from error


def _key_id(name: str, key: VerifyingKey) -> bytes:
    if isinstance(key, Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(name.encode() + b"\n" + ED25519 + raw).digest()[:ID_SIZE]
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()[:ID_SIZE]


def _check(key: VerifyingKey, signature: bytes, signed: bytes) -> None:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature as error:
        raise NoteSignature("the signature of the checkpoint does not verify") from error
