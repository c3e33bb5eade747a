"""Boot logs (TCG PC Client Platform Firmware Profile, 10): parse, replay, and only then extract facts.

bytes -> RawBootLog       parse_boot_log       well-formed, nothing believed
      -> ReplayedLog      verify_boot_log      its digests give the PCR values of a verified quote
      -> BootFacts        extract_facts        each from an event whose digest covers its data

Where the firmware's log ends, systemd's goes on (`parse_userspace_log`); canonical logs are parsed and replayed apart
(`bootlog.cel`). What real firmware gets wrong has a name each (`bootlog.quirks`).
"""

from umec_attest.bootlog.facts import BootFacts, claimed_facts, extract_facts
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.parse import RawBootLog, RawEvent, parse_boot_log
from umec_attest.bootlog.quirks import EXCUSABLE, EXCUSABLE_IN_FORM
from umec_attest.bootlog.replay import ReplayedLog, replay, verify_boot_log
from umec_attest.bootlog.userspace import UserspaceRecord, parse_userspace_log

__all__ = [
    "EXCUSABLE",
    "EXCUSABLE_IN_FORM",
    "BootFacts",
    "Finding",
    "RawBootLog",
    "RawEvent",
    "ReplayedLog",
    "UserspaceRecord",
    "claimed_facts",
    "extract_facts",
    "parse_boot_log",
    "parse_userspace_log",
    "replay",
    "verify_boot_log",
]
