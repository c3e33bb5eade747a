"""PKCS#11 URIs (RFC 7512), as far as one names a private key: pkcs11:token=NAME;object=NAME?module-path=FILE.

1. it has the scheme (in any case: RFC 3986, 3.1), and is as long as one is
2. each attribute is a known one, there once, and not empty
3. it names a token, and a key in it by its label (`object`) or `id`
4. it carries no PIN: command lines are seen by others; `pin-source` names a file
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from umec_core.pkcs11.errors import Pkcs11UriInvalid

__all__ = ["SCHEME", "TokenUri", "parse_uri"]

SCHEME: Final = "pkcs11:"
MAX_URI: Final = 2048
"""Characters; a token, a key and two paths."""
_PATH: Final = frozenset({"token", "serial", "object", "id", "type"})
"""Attributes of token and key that are compared; those of slots and libraries say where, and not what, a key is."""
_QUERY: Final = frozenset({"module-path", "pin-source"})
_ESCAPED: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/&|?]|%[0-9A-Fa-f]{2})+")
_FILE: Final = re.compile(r"(?:file:(?://)?)?(/.+)")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Which key in which token: `label` and `id` have to fit where they are there. `module` None: the environment's."""

    token: str | None
    serial: str | None
    label: str | None
    id: bytes | None
    module: Path | None
    pin_source: Path | None


def parse_uri(text: str) -> TokenUri:
    """Return what a URI names. Raises Pkcs11UriInvalid, which repeats nothing of a PIN."""
    if text[: len(SCHEME)].lower() != SCHEME or len(text) > MAX_URI:  # 1
        raise Pkcs11UriInvalid(
            f"a key in a token is named by {SCHEME}token=…;object=…, of at most {MAX_URI} characters"
        )
    path, _, query = text[len(SCHEME) :].partition("?")
    found = dict(_attributes(path, ";", _PATH)) | dict(_attributes(query, "&", _QUERY))  # 2
    if found.get("type", b"private") != b"private":
        raise Pkcs11UriInvalid("it names another object than a private key")
    if not found.keys() & {"token", "serial"} or not found.keys() & {"object", "id"}:  # 3
        raise Pkcs11UriInvalid("it has to name a token (token or serial), and a key in it (object or id)")
    return TokenUri(
        token=_text(found, "token"),
        serial=_text(found, "serial"),
        label=_text(found, "object"),
        id=found.get("id"),
        module=_file(found, "module-path"),
        pin_source=_file(found, "pin-source"),
    )


def _attributes(part: str, separator: str, known: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    seen = set[str]()
    for piece in part.split(separator) if part else ():
        name, _, value = piece.partition("=")
        if name == "pin-value":  # 4
            raise Pkcs11UriInvalid("a PIN does not belong into a URI", advice="pin-source=FILE, or UMEC_PKCS11_PIN")
        if name not in known or name in seen:
            raise Pkcs11UriInvalid(f"{name[:32]!r} is twice there, or none of {', '.join(sorted(_PATH | _QUERY))}")
        if _ESCAPED.fullmatch(value) is None:
            raise Pkcs11UriInvalid(f"{name} is empty, or has characters that have to be escaped (%20)")
        seen.add(name)
        yield name, unquote_to_bytes(value)


def _text(found: dict[str, bytes], name: str) -> str | None:
    if name not in found:
        return None
    try:
        text = found[name].decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise Pkcs11UriInvalid(f"{name} is no text")
    return text


def _file(found: dict[str, bytes], name: str) -> Path | None:
    text = _text(found, name)
    if text is None:
        return None
    place = _FILE.fullmatch(text)
    if place is None:
        raise Pkcs11UriInvalid(f"{name} is no absolute path of a file")
    return Path(place[1])
