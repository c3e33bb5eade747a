"""Typed facts from a boot log: each only from an event whose digest covers what the fact says.

Types, names and descriptions in a log are not authenticated; digests are. So an event's data counts only where it
hashes to the digest, everything else in PCR 4 and 7 is judged by its digest alone, and whatever does not fit the order
that the firmware profile prescribes is a finding. A fact that a finding touches is None: unknown, never a guess.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from umec_attest.bootlog.efi import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, EfiVariable, parse_variable
from umec_attest.bootlog.event_types import (
    EV_ACTION,
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_BOOT,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_NO_ACTION,
    EV_S_CRTM_VERSION,
    EV_SEPARATOR,
    type_name,
)
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.parse import RawBootLog, RawEvent
from umec_attest.bootlog.replay import FIRMWARE_PCRS, ReplayedLog
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["BootFacts", "claimed_facts", "extract_facts"]

_SEPARATORS: Final = frozenset({bytes(4), b"\xff\xff\xff\xff"})
"""What a firmware measures when it hands over without an error."""
_ERROR_SEPARATOR: Final = b"\x01\0\0\0"
_ANY_SEPARATOR: Final = _SEPARATORS | {_ERROR_SEPARATOR}
_CALLING: Final = b"Calling EFI Application from Boot Option"
_DIGEST_IS_OF_DATA: Final = frozenset({EV_SEPARATOR, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_ACTION, EV_ACTION})
"""Over 87 real logs these always hash their data: one that does not is forged or re-typed."""
_BEFORE_SEPARATOR_7: Final = frozenset({EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_ACTION, EV_ACTION})
_BOOT_VARIABLES_PCR: Final = 1
_UKI_PCR: Final = 11


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What the boot was, as far as digests prove it. Digests are hex.

    `secure_boot`: None if the log does not prove it. `variables`: SHA-256 of the content of PK, KEK, db, dbx.
    `authorities`: digests of what the firmware verified images with. `boot_applications`: PE digests of PCR 4, all
    in order. `uki_sections`: section name -> digest of its content.
    """

    algorithm: HashAlgorithm
    secure_boot: bool | None
    variables: Mapping[str, str]
    authorities: tuple[str, ...]
    boot_applications: tuple[str, ...]
    uki_sections: Mapping[str, str]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the facts, without the findings, for JSON."""
        return {
            "algorithm": self.algorithm.label,
            "secure_boot": self.secure_boot,
            "variables": dict(self.variables),
            "authorities": list(self.authorities),
            "boot_applications": list(self.boot_applications),
            "uki_sections": dict(self.uki_sections),
        }


@dataclass(slots=True)
class _Draft:
    """Facts and findings as they are collected."""

    algorithm: HashAlgorithm
    secure_boot: bool | None = None
    variables: dict[str, str] = field(default_factory=dict)
    authorities: list[str] = field(default_factory=list)
    applications: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    spoiled: set[int] = field(default_factory=set)

    def find(self, identifier: str, pcr: int, detail: str) -> None:
        self.findings.append(Finding(identifier, f"PCR {pcr}: {detail}"))
        self.spoiled.add(pcr)

    def covers(self, event: RawEvent) -> bool:
        return event.digest(self.algorithm) == self.algorithm.digest(event.data)

    def hex(self, event: RawEvent) -> str:
        return (event.digest(self.algorithm) or b"").hex()


def extract_facts(log: ReplayedLog) -> BootFacts:
    """Return the facts of a log that replays to a quote, with everything that is wrong with it as findings."""
    return _extract(log.events, log.algorithm)


def claimed_facts(raw: RawBootLog, algorithm: HashAlgorithm) -> BootFacts:
    """Return the facts that a log claims, proven by nothing: for showing a log, never for a decision."""
    return _extract(raw.events, algorithm)


def _extract(events: Iterable[RawEvent], algorithm: HashAlgorithm) -> BootFacts:
    draft = _Draft(algorithm)
    by_pcr: dict[int, list[RawEvent]] = {}
    for event in events:
        if event.type != EV_NO_ACTION:
            by_pcr.setdefault(event.pcr, []).append(event)
    _check_data(draft, by_pcr)
    for pcr in sorted(FIRMWARE_PCRS & by_pcr.keys()):
        _check_separator(draft, pcr, by_pcr[pcr])
    _check_crtm(draft, by_pcr.get(0, []))
    _read_secure_boot(draft, by_pcr.get(7, []))
    _read_applications(draft, by_pcr.get(4, []))
    _read_uki(draft, by_pcr.get(_UKI_PCR, []))
    return BootFacts(
        algorithm,
        draft.secure_boot,
        MappingProxyType(draft.variables),
        tuple(draft.authorities),
        tuple(draft.applications),
        MappingProxyType(draft.sections),
        tuple(draft.findings),
    )


def _check_data(draft: _Draft, by_pcr: Mapping[int, Sequence[RawEvent]]) -> None:
    for pcr, events in by_pcr.items():
        for event in events:
            if event.type in _DIGEST_IS_OF_DATA and not draft.covers(event):
                draft.find("event-data-mismatch", pcr, f"the digest of {type_name(event.type)} is not of its data")


def _check_separator(draft: _Draft, pcr: int, events: Sequence[RawEvent]) -> None:
    digests = {draft.algorithm.digest(value): value for value in _ANY_SEPARATOR}
    separators = [event for event in events if event.type == EV_SEPARATOR]
    if any(
        event.digest(draft.algorithm) in digests and not _is_separator_or_variable(draft, event) for event in events
    ):
        draft.find("separator-retyped", pcr, "the digest of a separator under another event type")
    if len(separators) > 1:
        draft.find("separator-duplicate", pcr, f"{len(separators)} separators")
    if not separators:
        draft.find("separator-missing", pcr, "the firmware did not end its measurements")
    for event in separators:
        if event.data == _ERROR_SEPARATOR:
            draft.find("firmware-error", pcr, "the firmware reported an error")
        elif event.data not in _SEPARATORS:
            draft.find("separator-invalid", pcr, "the data of the separator is none")


def _is_separator_or_variable(draft: _Draft, event: RawEvent) -> bool:
    """A BootOrder of two entries can have the very bytes of an error separator, and some firmware hashes only those."""
    if event.type == EV_EFI_VARIABLE_BOOT and event.pcr == _BOOT_VARIABLES_PCR:
        variable = parse_variable(event.data)
        return variable is not None and draft.algorithm.digest(variable.data) == event.digest(draft.algorithm)
    return event.type == EV_SEPARATOR


def _check_crtm(draft: _Draft, events: Sequence[RawEvent]) -> None:
    versions = [event for event in events if event.type == EV_S_CRTM_VERSION]
    if not events:
        return
    if len(versions) != 1 or not draft.covers(versions[0]):
        draft.find("crtm-version-invalid", 0, "not exactly one S-CRTM version whose digest covers it")


def _read_secure_boot(draft: _Draft, events: Sequence[RawEvent]) -> None:
    """PCR 7: configuration, separator, authorities; nothing else, and in this order."""
    end = next((n for n, event in enumerate(events) if event.type == EV_SEPARATOR), len(events))
    seen: set[str] = set()
    for event in events[:end]:
        if event.type not in _BEFORE_SEPARATOR_7:
            draft.find("secure-boot-event-unexpected", 7, f"{type_name(event.type)} before the separator")
        elif event.type == EV_EFI_VARIABLE_DRIVER_CONFIG and draft.covers(event):
            _read_variable(draft, parse_variable(event.data), seen)
    for event in events[end + 1 :]:
        _read_authority(draft, event)
    if "SecureBoot" not in seen:
        draft.find("secure-boot-unknown", 7, "the log does not say whether Secure Boot was on")
    if 7 in draft.spoiled:
        draft.secure_boot = None


def _read_variable(draft: _Draft, variable: EfiVariable | None, seen: set[str]) -> None:
    if variable is None:
        draft.find("secure-boot-variable-invalid", 7, "a measured variable is none")
        return
    if (variable.vendor, variable.name) not in _MEASURED:
        return  # AuditMode, DeployedMode and vendors' own: in the digest, and no fact of ours
    if variable.name in seen:
        draft.find("secure-boot-variable-repeated", 7, f"{variable.name} was measured twice")
    seen.add(variable.name)
    if variable.name == "SecureBoot":
        if len(variable.data) == 1 and variable.data[0] in (0, 1):
            draft.secure_boot = variable.data == b"\x01"
        else:
            draft.find("secure-boot-variable-invalid", 7, f"SecureBoot has {len(variable.data)} bytes, not 1")
    else:
        draft.variables[variable.name] = hashlib.sha256(variable.data).hexdigest()


_MEASURED: Final = frozenset(
    {
        (GLOBAL_VARIABLE, "SecureBoot"),
        (GLOBAL_VARIABLE, "PK"),
        (GLOBAL_VARIABLE, "KEK"),
        (IMAGE_SECURITY_DATABASE, "db"),
        (IMAGE_SECURITY_DATABASE, "dbx"),
    }
)


def _read_authority(draft: _Draft, event: RawEvent) -> None:
    if event.type == EV_SEPARATOR:
        return  # the duplicate is a finding already
    if event.type == EV_EFI_VARIABLE_DRIVER_CONFIG:
        draft.find("secure-boot-variable-late", 7, "a Secure Boot variable after the separator")
    elif event.type not in (EV_EFI_VARIABLE_AUTHORITY, EV_EFI_ACTION, EV_ACTION):
        draft.find("secure-boot-event-unexpected", 7, f"{type_name(event.type)} after the separator")
    draft.authorities.append(draft.hex(event))


def _read_applications(draft: _Draft, events: Sequence[RawEvent]) -> None:
    """PCR 4: whatever is neither a separator nor an action that its digest proves is taken for a boot application."""
    called = False
    for event in events:
        if event.type in (EV_EFI_ACTION, EV_ACTION, EV_SEPARATOR) and draft.covers(event):
            called = called or event.data.rstrip(b"\0") == _CALLING
        else:
            if not called and event.type == EV_EFI_BOOT_SERVICES_APPLICATION:
                draft.find("boot-application-early", 4, "a boot application before the firmware called one")
                called = True
            draft.applications.append(draft.hex(event))


def _read_uki(draft: _Draft, events: Sequence[RawEvent]) -> None:
    """PCR 11: systemd-stub measures the name of a section (with its NUL) and then its content."""
    pending: str | None = None
    for event in events:
        name = _section_name(draft, event)
        if pending is None:
            if name is None:
                draft.find("uki-event-unexpected", _UKI_PCR, "a measurement that is not a section of the image")
            pending = name
        else:
            if pending in draft.sections:
                draft.find("uki-section-repeated", _UKI_PCR, f"{pending} was measured twice")
            draft.sections[pending] = draft.hex(event)
            pending = None
    if pending is not None:
        draft.find("uki-event-unexpected", _UKI_PCR, f"the content of {pending} was not measured")


def _section_name(draft: _Draft, event: RawEvent) -> str | None:
    """The name is believed because its digest is that of the name, whatever encoding the description has."""
    for encoding in ("utf-8", "utf-16-le"):
        try:
            name = event.data.decode(encoding).rstrip("\0")
        except UnicodeDecodeError:
            continue
        if not name.startswith("."):
            continue
        if draft.algorithm.digest(name.encode() + b"\0") == event.digest(draft.algorithm):
            return name
    return None
