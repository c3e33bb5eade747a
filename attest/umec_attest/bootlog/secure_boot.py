"""Secure Boot as PCR 7 proves it: what was configured, what drivers and boot applications were verified with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from umec_attest.bootlog.coverage import SHIM_SURPLUS
from umec_attest.bootlog.draft import Draft, Measured
from umec_attest.bootlog.efi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK, EfiVariable, parse_variable
from umec_attest.bootlog.event_types import (
    EV_ACTION,
    EV_EFI_ACTION,
    EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_SEPARATOR,
    type_name,
)
from umec_attest.bootlog.signatures import Certificate, SignatureDatabase, parse_database, read_certificate

__all__ = ["Authority", "SecureBoot", "read_secure_boot"]

_PCR: Final = 7
_BEFORE: Final = frozenset({EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_ACTION, EV_ACTION})
_OWNER_SIZE: Final = 16
_SHA256_SIZE: Final = 32
_DER_SEQUENCE: Final = b"0\x82"
"""How a certificate of 256 bytes to 64 KiB begins."""
_MEASURED: Final = frozenset(
    {
        (GLOBAL_VARIABLE, "SecureBoot"),
        (GLOBAL_VARIABLE, "PK"),
        (GLOBAL_VARIABLE, "KEK"),
        (IMAGE_SECURITY_DATABASE, "db"),
        (IMAGE_SECURITY_DATABASE, "dbx"),
    }
)
_NO_CERTIFICATE: Final = frozenset({"SbatLevel", "MokListTrusted"})
"""What shim measures as an authority, and is its configuration."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What an image was verified with: the variable that held it, and the certificate, or the hash of the image.

    `in_db` tells whether the measured db has it; None where it is of another variable (shim's), or db is unreadable.
    """

    variable: str
    certificate: Certificate | None
    image_sha256: str | None
    in_db: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return {"variable", "certificate": {"sha256", "subject"} or null, "image_sha256", "in_db"}."""
        found = self.certificate
        return {
            "variable": self.variable,
            "certificate": None if found is None else {"sha256": found.sha256, "subject": found.subject},
            "image_sha256": self.image_sha256,
            "in_db": self.in_db,
        }


@dataclass(slots=True)
class SecureBoot:
    """What PCR 7 says. `variables` has the SHA-256 of each content, `shim` what shim measured of its own variables."""

    enabled: bool | None = None
    variables: dict[str, str] = field(default_factory=dict)
    databases: dict[str, SignatureDatabase] = field(default_factory=dict)
    driver_authorities: list[Authority] = field(default_factory=list)
    authorities: list[Authority] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    shim: dict[str, bytes] = field(default_factory=dict)


def read_secure_boot(draft: Draft, events: Sequence[Measured]) -> SecureBoot:
    """PCR 7: configuration and authorities of drivers, separator, authorities of applications; in this order."""
    end = next((n for n, event in enumerate(events) if event.type == EV_SEPARATOR), len(events))
    found, seen = SecureBoot(), set[str]()
    for event in events[:end]:
        if event.type == EV_EFI_VARIABLE_AUTHORITY:
            _read_driver_authority(draft, found, event)
        elif event.type not in _BEFORE:
            draft.find("secure-boot-event-unexpected", _PCR, f"{type_name(event.type)} before the separator")
        elif event.type == EV_EFI_VARIABLE_DRIVER_CONFIG and event.proven is not None:
            _read_variable(draft, found, parse_variable(event.data), seen)
    for event in events[end + 1 :]:
        _read_late(draft, found, event)
    if "SecureBoot" not in seen:
        draft.find("secure-boot-unknown", _PCR, "the log does not say whether Secure Boot was on")
    if _PCR in draft.spoiled:
        found.enabled = None
        found.shim.clear()
    return found


def _read_variable(draft: Draft, found: SecureBoot, variable: EfiVariable | None, seen: set[str]) -> None:
    if variable is None:
        draft.find("secure-boot-variable-invalid", _PCR, "a measured variable is none")
        return
    if (variable.vendor, variable.name) not in _MEASURED:
        return  # AuditMode, DeployedMode and vendors' own: in the digest, and no fact of ours
    if variable.name in seen:
        draft.find("secure-boot-variable-repeated", _PCR, f"{variable.name} was measured twice")
    seen.add(variable.name)
    if variable.name != "SecureBoot":
        found.variables[variable.name] = hashlib.sha256(variable.data).hexdigest()
        if (database := parse_database(variable.data)) is not None:
            found.databases[variable.name] = database
    elif not variable.data:
        draft.find("secure-boot-variable-empty", _PCR, "SecureBoot has no content")
    elif variable.data in {b"\0", b"\1"}:
        found.enabled = variable.data == b"\1"
    else:
        draft.find("secure-boot-variable-invalid", _PCR, f"SecureBoot is {variable.data[:8].hex()}, neither 0 nor 1")


def _read_driver_authority(draft: Draft, found: SecureBoot, event: Measured) -> None:
    """Drivers of cards are verified before the separator, by db alone: shim does not run yet."""
    authority = _authority(draft, found, event)
    if authority is None or authority.variable != "db":
        draft.find("secure-boot-event-unexpected", _PCR, "an authority of a driver that is not of db")
    else:
        found.driver_authorities.append(authority)


def _read_late(draft: Draft, found: SecureBoot, event: Measured) -> None:
    """What comes after the separator configures nothing any more."""
    if event.type == EV_SEPARATOR:
        return  # the duplicate is a finding already
    if event.type == EV_EFI_VARIABLE_DRIVER_CONFIG:
        draft.find("secure-boot-variable-late", _PCR, "a Secure Boot variable after the separator")
    elif event.type not in (EV_EFI_VARIABLE_AUTHORITY, EV_EFI_ACTION, EV_ACTION):
        draft.find("secure-boot-event-unexpected", _PCR, f"{type_name(event.type)} after the separator")
    found.digests.append(event.digest.hex())
    if event.type == EV_EFI_VARIABLE_AUTHORITY and (authority := _authority(draft, found, event)) is not None:
        found.authorities.append(authority)


def _authority(draft: Draft, found: SecureBoot, event: Measured) -> Authority | None:
    """Return the authority that a measurement proves; None if it proves none."""
    if event.proven is None:
        return None
    variable = parse_variable(event.proven) or parse_variable(event.proven[:-SHIM_SURPLUS])
    if variable is None:
        return None
    if (variable.vendor, variable.name) in _MEASURED and variable.name != "db":
        draft.find("secure-boot-event-unexpected", _PCR, f"{variable.name} as what an image was verified with")
        return None
    if variable.vendor == SHIM_LOCK and variable.name in _NO_CERTIFICATE:
        found.shim[variable.name] = variable.data
        return None
    return _entry(draft, variable, found.databases.get("db"))


def _entry(draft: Draft, variable: EfiVariable, database: SignatureDatabase | None) -> Authority:
    """Read an entry of a database: behind its owner or, as older shims have it, without one."""
    bare = variable.data.startswith(_DER_SEQUENCE)
    content = variable.data if bare else variable.data[_OWNER_SIZE:]
    image = content.hex() if len(content) == _SHA256_SIZE else None
    certificate = read_certificate(content) if image is None else None
    in_db: bool | None = None
    if variable.vendor == IMAGE_SECURITY_DATABASE and variable.name == "db" and database is not None:
        in_db = certificate in database.certificates or image in database.hashes
        if not in_db:
            draft.find("authority-not-in-db", _PCR, "an image was verified with what the measured db does not have")
    return Authority(variable.name, certificate, image, in_db)
