"""Text that may cross into netd: every kind has one strict grammar, so that nothing needs escaping further down."""

import base64
import binascii
import re
from ipaddress import AddressValueError, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

__all__ = [
    "MAX_SECRET",
    "Address",
    "Argument",
    "BlobDirectory",
    "Cidr",
    "Digest",
    "DnsName",
    "Identifier",
    "Repository",
    "RequestId",
    "Secret",
    "SecretName",
    "Token",
    "VariableName",
    "VariableValue",
]

MAX_SECRET: Final = 65536
"""Octets of one secret file: a credential or a chain of certificates, never data."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def _address(value: str) -> str:
    """Return the one spelling of an address (RFC 5952); zones and IPv4 with leading zeros are refused."""
    if "%" in value:
        raise ValueError("an address without a zone is expected")
    return str(ip_address(value))


def _cidr(value: str) -> str:
    """Return the one spelling of a prefix; a bare address is its own prefix; host bits must be zero."""
    if "%" in value:
        raise ValueError("a prefix without a zone is expected")
    try:
        network: IPv4Network | IPv6Network = ip_network(value, strict=True)
    except AddressValueError as error:  # pragma: no cover - a ValueError already
        raise ValueError(str(error)) from error
    return str(network)


def _dns_name(value: str) -> str:
    """RFC 1123 host name of two labels or more, in lower case, without the final dot."""
    labels = value.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a lower-case host name of two labels or more is expected")
    if labels[-1].isdigit():
        raise ValueError("the last label of a host name is not a number")
    return value


def _secret(value: str) -> str:
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("strict standard base64 is expected") from error
    if len(content) > MAX_SECRET or base64.b64encode(content).decode() != value:
        raise ValueError(f"canonical base64 of at most {MAX_SECRET} octets is expected")
    return value


def _directory(value: str) -> str:
    if any(part in {"", ".", ".."} for part in value[1:].split("/")):
        raise ValueError("an absolute path without empty, '.' and '..' parts is expected")
    return value


_PRINTABLE: Final = r"^[^\x00-\x1f\x7f\x{80}-\x{9f}\x{2028}\x{2029}]*$"

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Name of a tenant, an instance, a node or a rule."""

RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]

Address = Annotated[str, StringConstraints(max_length=64), AfterValidator(_address)]
"""IPv4 or IPv6 address in its one spelling."""

Cidr = Annotated[str, StringConstraints(max_length=80), AfterValidator(_cidr)]
"""IPv4 or IPv6 prefix in its one spelling."""

DnsName = Annotated[str, StringConstraints(max_length=253), AfterValidator(_dns_name)]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

Repository = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)+$")
]
"""`TENANT/NAME` by the grammar of the OCI distribution specification."""

BlobDirectory = Annotated[
    str, StringConstraints(max_length=1024, pattern=r"^/[A-Za-z0-9._/@+-]+$"), AfterValidator(_directory)
]
"""Absolute path of a content-addressed folder with `sha256/<hex>` files."""

Argument = Annotated[str, StringConstraints(max_length=4096, pattern=_PRINTABLE)]
"""One word of a command line: it is data in the runtime specification, no shell ever reads it."""

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]

VariableValue = Annotated[str, StringConstraints(max_length=4096, pattern=_PRINTABLE)]

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}(?:\.[a-z0-9_-]{1,31}){0,2}$")]
"""File name under /run/umec in the container."""

Secret = Annotated[str, StringConstraints(max_length=MAX_SECRET * 4 // 3 + 4), AfterValidator(_secret)]
"""Standard base64 of a secret's octets."""

Token = Annotated[str, StringConstraints(max_length=65536, pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
"""A JWS in compact serialisation."""
