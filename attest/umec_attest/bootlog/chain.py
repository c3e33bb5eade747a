"""What was started, as PCRs 0, 2, 4 and 11 prove it: first code, drivers of cards, boot applications, UKI sections."""

from collections.abc import Sequence
from typing import Final

from umec_attest.bootlog.draft import Draft, Measured
from umec_attest.bootlog.event_types import (
    EV_ACTION,
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_HCRTM_EVENT,
    EV_S_CRTM_VERSION,
    EV_SEPARATOR,
)

__all__ = ["check_first_code", "read_applications", "read_drivers", "read_sections"]

_CALLING: Final = b"Calling EFI Application from Boot Option"
_H_CRTM_LOCALITY: Final = 4
_ACTIONS: Final = frozenset({EV_EFI_ACTION, EV_ACTION, EV_SEPARATOR})
_UKI_PCR: Final = 11


def check_first_code(draft: Draft, by_pcr: dict[int, list[Measured]], locality: int) -> None:
    """PCR 0: exactly one S-CRTM version; and what an H-CRTM measured only where one started the TPM, and first."""
    events = by_pcr.get(0, [])
    versions = [event for event in events if event.type == EV_S_CRTM_VERSION]
    if events and (len(versions) != 1 or versions[0].proven is None):
        draft.find("crtm-version-invalid", 0, "not exactly one S-CRTM version whose digest covers it")
    for pcr, measured in by_pcr.items():
        first = 0 if pcr or locality != _H_CRTM_LOCALITY else 1
        if any(event.type == EV_EFI_HCRTM_EVENT for event in measured[first:]):
            draft.find("hcrtm-invalid", pcr, "an event of an H-CRTM that did not start the TPM, or is not the first")


def read_drivers(events: Sequence[Measured]) -> tuple[str, ...]:
    """PCR 2: whatever its data does not explain is code of a card, or what such code measured."""
    return tuple(event.digest.hex() for event in events if event.proven is None)


def read_applications(draft: Draft, events: Sequence[Measured]) -> tuple[str, ...]:
    """PCR 4: whatever is neither a separator nor an action that its digest proves is taken for a boot application."""
    called = False
    applications: list[str] = []
    for event in events:
        if event.type in _ACTIONS and event.proven is not None:
            called = called or event.data.rstrip(b"\0") == _CALLING
            continue
        if not called and event.type == EV_EFI_BOOT_SERVICES_APPLICATION:
            draft.find("boot-application-early", 4, "a boot application before the firmware called one")
            called = True
        applications.append(event.digest.hex())
    return tuple(applications)


def read_sections(draft: Draft, events: Sequence[Measured]) -> dict[str, str]:
    """PCR 11: systemd-stub measures the name of a section (with its NUL) and then its content."""
    sections: dict[str, str] = {}
    pending: str | None = None
    for event in events:
        if pending is None:
            pending = _section_name(draft, event)
            if pending is None:
                draft.find("uki-event-unexpected", _UKI_PCR, "a measurement that is not a section of the image")
            continue
        if pending in sections:
            draft.find("uki-section-repeated", _UKI_PCR, f"{pending} was measured twice")
        sections[pending] = event.digest.hex()
        pending = None
    if pending is not None:
        draft.find("uki-event-unexpected", _UKI_PCR, f"the content of {pending} was not measured")
    return sections


def _section_name(draft: Draft, event: Measured) -> str | None:
    """The name is believed because its digest is that of the name, whatever encoding the description has."""
    for encoding in ("utf-8", "utf-16-le"):
        try:
            name = event.data.decode(encoding).rstrip("\0")
        except UnicodeDecodeError:
            continue
        if name.startswith(".") and draft.algorithm.digest(name.encode() + b"\0") == event.digest:
            return name
    return None
