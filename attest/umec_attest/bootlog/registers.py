"""Registers of confidential computing (UEFI 2.10, 38.4.1; Intel TDX): which they are, and what is measured into them.

| index in a CCEL log | Intel TDX | the PCRs that it stands for |
|---------------------|-----------|-----------------------------|
| 0                   | MRTD      | 0                           |
| 1                   | RTMR0     | 1, 7                        |
| 2                   | RTMR1     | 2 to 6                      |
| 3                   | RTMR2     | 8 to 15                     |
| 4                   | RTMR3     | none: for the workload      |

Several PCRs share a register, so the types of events have to say which events are of which: that is good enough for
showing a log, which nobody quoted.
"""

from collections.abc import Iterable
from typing import Final

from umec_attest.bootlog.event_types import (
    EV_ACTION,
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_VARIABLE_AUTHORITY,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_NO_ACTION,
    EV_SEPARATOR,
)
from umec_attest.bootlog.parse import RawEvent

__all__ = ["REGISTERS", "by_role", "register_name", "register_of_role"]

REGISTERS: Final = ("MRTD", "RTMR0", "RTMR1", "RTMR2", "RTMR3")

_CONFIGURATION: Final = 1
_LOADER: Final = 2
_SYSTEM: Final = 3
_REGISTER_OF_PCR: Final = {7: _CONFIGURATION, 4: _LOADER, 8: _SYSTEM, 9: _SYSTEM, 14: _SYSTEM}
_SECURE_BOOT: Final = frozenset({EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_VARIABLE_AUTHORITY})
_APPLICATIONS: Final = frozenset({EV_EFI_BOOT_SERVICES_APPLICATION, EV_EFI_ACTION, EV_ACTION})
_GRUB: Final = (b"grub_", b"kernel_", b"module_")
_SHIM: Final = b"Mok"


def register_name(index: int) -> str:
    """Return what Intel TDX calls a register of a CCEL log, or its number."""
    return REGISTERS[index] if index < len(REGISTERS) else f"register {index}"


def register_of_role(pcr: int) -> str:
    """Return which register holds what `by_role` files under a PCR."""
    return REGISTERS[_REGISTER_OF_PCR[pcr]]


def by_role(events: Iterable[RawEvent]) -> dict[int, list[RawEvent]]:
    """Return the events of a CCEL log under the PCR that each would be measured into on a machine with a TPM.

    Events that no fact is made of are left out. A separator of a register stands for one of PCR 7 or PCR 4.
    """
    roles: dict[int, list[RawEvent]] = {}
    for event in events:
        pcr = _role(event)
        if event.type != EV_NO_ACTION and pcr is not None:
            roles.setdefault(pcr, []).append(event)
    return roles


def _role(event: RawEvent) -> int | None:
    if event.pcr == _CONFIGURATION and (event.type in _SECURE_BOOT or event.type == EV_SEPARATOR):
        return 7
    if event.pcr == _LOADER and (event.type in _APPLICATIONS or event.type == EV_SEPARATOR):
        return 4
    if event.pcr == _SYSTEM:
        if event.data.startswith(_SHIM):
            return 14
        return 8 if event.data.startswith(_GRUB) else 9
    return None
