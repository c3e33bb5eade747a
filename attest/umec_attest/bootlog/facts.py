"""Typed facts from a boot log: each only from an event whose digest covers what the fact says.

Types, names and descriptions in a log are not authenticated; digests are. So an event's data counts only where it
hashes to the digest, everything else is judged by its digest alone, and whatever does not fit the order that the
firmware profile prescribes is a finding. A fact that a finding touches is None: unknown, never a guess.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from umec_attest.bootlog.chain import check_first_code, read_applications, read_drivers, read_sections
from umec_attest.bootlog.draft import Draft, Measured, measure
from umec_attest.bootlog.efi import parse_variable
from umec_attest.bootlog.event_types import (
    EV_EFI_VARIABLE_BOOT,
    EV_NO_ACTION,
    EV_S_CRTM_VERSION,
    EV_SEPARATOR,
    type_name,
)
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.loaders import CommandLine, Grub, Shim, read_grub, read_shim, read_stub
from umec_attest.bootlog.parse import RawBootLog, RawEvent
from umec_attest.bootlog.registers import by_role, register_of_role
from umec_attest.bootlog.replay import FIRMWARE_PCRS, ReplayedLog, startup_locality
from umec_attest.bootlog.secure_boot import Authority, read_secure_boot
from umec_attest.bootlog.signatures import SignatureDatabase
from umec_attest.bootlog.userspace import UserspaceRecord
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["BootFacts", "UserspaceFact", "claimed_facts", "extract_facts"]

_SEPARATORS: Final = frozenset({bytes(4), b"\xff\xff\xff\xff"})
"""What a firmware measures when it hands over without an error."""
_ERROR_SEPARATOR: Final = b"\x01\0\0\0"
_ANY_SEPARATOR: Final = _SEPARATORS | {_ERROR_SEPARATOR}
_BOOT_VARIABLES_PCR: Final = 1


@dataclass(frozen=True, slots=True)
class UserspaceFact:
    """What userspace measured into a PCR: the text where the digest (hex) is of it, else None, as for a volume key."""

    pcr: int
    digest: str
    text: str | None

    def to_json(self) -> dict[str, Any]:
        """Return {"pcr", "digest", "text"}."""
        return {"pcr": self.pcr, "digest": self.digest, "text": self.text}


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What the boot was, as far as digests prove it. Digests are hex, of the bank `algorithm` unless said.

    `locality` is where the TPM was started from; `secure_boot` is None if the log does not prove it. `variables` has
    the SHA-256 of the content of PK, KEK, db, dbx, `databases` what they hold where they can be read. `authorities` are
    the digests of what came after the separator of PCR 7, `boot_authorities` and `driver_authorities` what images were
    verified with. `drivers` and `boot_applications` are digests of code in PCR 2 and PCR 4, in order; `uki_sections`
    maps the name of a section to the digest of its content. `grub` and `shim` are None where they measured nothing.
    """

    algorithm: HashAlgorithm
    locality: int
    secure_boot: bool | None
    variables: Mapping[str, str]
    databases: Mapping[str, SignatureDatabase]
    authorities: tuple[str, ...]
    boot_authorities: tuple[Authority, ...]
    driver_authorities: tuple[Authority, ...]
    drivers: tuple[str, ...]
    boot_applications: tuple[str, ...]
    uki_sections: Mapping[str, str]
    command_lines: tuple[CommandLine, ...]
    grub: Grub | None
    shim: Shim | None
    userspace: tuple[UserspaceFact, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the facts, without the findings, for JSON."""
        return {
            "algorithm": self.algorithm.label,
            "locality": self.locality,
            "secure_boot": self.secure_boot,
            "variables": dict(self.variables),
            "databases": {name: database.to_json() for name, database in self.databases.items()},
            "authorities": list(self.authorities),
            "boot_authorities": [authority.to_json() for authority in self.boot_authorities],
            "driver_authorities": [authority.to_json() for authority in self.driver_authorities],
            "drivers": list(self.drivers),
            "boot_applications": list(self.boot_applications),
            "uki_sections": dict(self.uki_sections),
            "command_lines": [line.to_json() for line in self.command_lines],
            "grub": None if self.grub is None else self.grub.to_json(),
            "shim": None if self.shim is None else self.shim.to_json(),
            "userspace": [fact.to_json() for fact in self.userspace],
        }


def extract_facts(log: ReplayedLog) -> BootFacts:
    """Return the facts of a log that replays to a quote, with everything that is wrong with it as findings."""
    draft = Draft(log.algorithm, _pcr_name, list(log.findings))
    return _extract(draft, _by_pcr(log.events), log.locality, log.userspace)


def claimed_facts(raw: RawBootLog, algorithm: HashAlgorithm, userspace: Sequence[UserspaceRecord] = ()) -> BootFacts:
    """Return the facts that a log claims, proven by nothing: for showing a log, never for a decision.

    Errors: those of `startup_locality`.
    """
    records = [record for record in userspace if record.pcr is not None]
    if raw.format == "confidential-computing":
        draft = Draft(algorithm, register_of_role, list(raw.findings))
        return _extract(draft, by_role(raw.events), 0, records)
    draft = Draft(algorithm, _pcr_name, list(raw.findings))
    return _extract(draft, _by_pcr(raw.events), startup_locality(raw), records)


def _pcr_name(pcr: int) -> str:
    return f"PCR {pcr}"


def _by_pcr(events: Iterable[RawEvent]) -> dict[int, list[RawEvent]]:
    by_pcr: dict[int, list[RawEvent]] = {}
    for event in events:
        if event.type != EV_NO_ACTION:
            by_pcr.setdefault(event.pcr, []).append(event)
    return by_pcr


def _extract(
    draft: Draft, events: Mapping[int, Sequence[RawEvent]], locality: int, userspace: Sequence[UserspaceRecord]
) -> BootFacts:
    algorithm = draft.algorithm
    by_pcr: dict[int, list[Measured]] = {}
    for pcr, listed in events.items():
        by_pcr[pcr] = [measure(event, algorithm, pcr) for event in listed]
        _check_data(draft, pcr, by_pcr[pcr])
    for pcr in sorted(FIRMWARE_PCRS & by_pcr.keys()):
        _check_separator(draft, pcr, by_pcr[pcr])
    check_first_code(draft, by_pcr, locality)
    secure_boot = read_secure_boot(draft, by_pcr.get(7, []))
    grub, command_lines = read_grub(draft, by_pcr.get(8, []), by_pcr.get(9, []))
    return BootFacts(
        algorithm=algorithm,
        locality=locality,
        secure_boot=secure_boot.enabled,
        variables=MappingProxyType(secure_boot.variables),
        databases=MappingProxyType(secure_boot.databases),
        authorities=tuple(secure_boot.digests),
        boot_authorities=tuple(secure_boot.authorities),
        driver_authorities=tuple(secure_boot.driver_authorities),
        drivers=read_drivers(by_pcr.get(2, [])),
        boot_applications=read_applications(draft, by_pcr.get(4, [])),
        uki_sections=MappingProxyType(read_sections(draft, by_pcr.get(11, []))),
        command_lines=(*command_lines, *read_stub(by_pcr.get(8, [])), *read_stub(by_pcr.get(12, []))),
        grub=grub,
        shim=read_shim(draft, secure_boot.shim, by_pcr.get(14, [])),
        userspace=tuple(
            UserspaceFact(record.pcr or 0, (record.digest(algorithm) or b"").hex(), record.proven_text(algorithm))
            for record in userspace
        ),
        findings=tuple(draft.findings),
    )


def _check_data(draft: Draft, pcr: int, events: Sequence[Measured]) -> None:
    for event in events:
        if event.forged and event.type != EV_S_CRTM_VERSION:  # which has a finding of its own
            draft.find("event-data-mismatch", pcr, f"the digest of {type_name(event.type)} is not of its data")


def _check_separator(draft: Draft, pcr: int, events: Sequence[Measured]) -> None:
    digests = {draft.algorithm.digest(value) for value in _ANY_SEPARATOR}
    separators = [event for event in events if event.type == EV_SEPARATOR]
    if any(event.digest in digests and not _is_separator_or_variable(draft, event) for event in events):
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


def _is_separator_or_variable(draft: Draft, event: Measured) -> bool:
    """A BootOrder of two entries can have the very bytes of an error separator, and some firmware hashes only those."""
    if event.type == EV_EFI_VARIABLE_BOOT and event.pcr == _BOOT_VARIABLES_PCR:
        variable = parse_variable(event.data)
        return variable is not None and draft.algorithm.digest(variable.data) == event.digest
    return event.type == EV_SEPARATOR
