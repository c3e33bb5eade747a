"""Every finding that an appraisal can have: its tier, what it means, and what to do. `docs/findings.md` is this table.

A finding that is not here contradicts what is expected.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["FINDINGS", "FindingKind", "Tier", "tier_of"]


@unique
class Tier(IntEnum):
    """The trust tiers of AR4SI (draft-ietf-rats-ar4si), each by the value that stands for it in a trust vector."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96


class FindingKind(NamedTuple):
    """What a finding puts its claim into, what it means, and what to do about it."""

    tier: Tier
    meaning: str
    advice: str


def tier_of(identifier: str) -> Tier:
    """Return the tier of a finding; what is not known to be harmless contradicts."""
    known = FINDINGS.get(identifier)
    return Tier.CONTRAINDICATED if known is None else known.tier


_INFORMATION, _WARNING, _CONTRADICTION = Tier.AFFIRMING, Tier.WARNING, Tier.CONTRAINDICATED
_WENT_BACK: Final = "the TPM went back in time: another TPM, or a cleared one; enrol it anew if that was you"
_RUNS_LOG: Final = "see that the agent may read the boot log: umec node run --boot-log FILE"
_FORGED: Final = "no firmware writes this: take it for an attack"
_FIRMWARE: Final = "the firmware's log does not say it: update the firmware"
_LIST: Final = "the list is not what the kernel measured: see what writes it, and take it for an attack until then"
_STARTS: Final = "see who extends PCR 15 and writes the log of starts, and take it for an attack until then; boot"
_HASH: Final = "have the kernel measure with SHA-256: ima_hash=sha256 on its command line"
_FILE: Final = "if the change was yours, sign and publish a newer reference set, and boot; else take it for an attack"
_QUIRK: Final = "see whether this firmware is known for it: then have the reference set excuse it for this very build"
_IMAGE: Final = "boot the image of the reference set; if the change was yours, sign and publish a newer reference set"

FINDINGS: Final[Mapping[str, FindingKind]] = MappingProxyType(
    {
        # --- PCR values against the reference set
        "pcr-unexpected": FindingKind(
            _CONTRADICTION,
            "a PCR has a value that the reference set does not give",
            "if the change was yours, sign and publish a newer reference set; else take it for an attack",
        ),
        "pcr-model-mixed": FindingKind(
            _CONTRADICTION,
            "each firmware PCR has a value of a known firmware build, but not all of the same one",
            "take it for an attack: no board has two firmware builds",
        ),
        "pcr-unlisted": FindingKind(
            _CONTRADICTION,
            "a PCR was quoted that the reference set neither lists nor ignores",
            "have the reference set list this PCR, or ignore it for a stated reason",
        ),
        "pcr-not-quoted": FindingKind(
            _CONTRADICTION,
            "a PCR of the reference set was not quoted",
            "add the PCR to attest.pcrs, or take it out of the reference set",
        ),
        "excused": FindingKind(
            _INFORMATION,
            "a quirk of this very firmware build, which the reference set excuses by name and with its reason",
            "nothing; a newer firmware may be without it",
        ),
        "reference-expired": FindingKind(
            _CONTRADICTION,
            "the reference set expired",
            "sign and publish a newer reference set: umec nodeimage predict, umec nodeimage publish",
        ),
        # --- versions of an image
        "version-outdated": FindingKind(
            _CONTRADICTION,
            "the node runs an older version of its image, which does not count beside the newest one any more",
            "boot the newest version of the image (umec nodeimage update); umec nodeimage versions says which count",
        ),
        "version-rollback": FindingKind(
            _CONTRADICTION,
            "the node runs an older version of its image, after it had stood on a newer one for an hour",
            "if you went back: umec node allow-version, then boot it; else take it for an attack",
        ),
        # --- the boot log
        "bootlog-missing": FindingKind(_CONTRADICTION, "no boot log of this boot is known", _RUNS_LOG),
        "bootlog-refused": FindingKind(_CONTRADICTION, "the boot log cannot be believed", _RUNS_LOG),
        "bootlog-empty": FindingKind(_CONTRADICTION, "the boot log measures nothing", _RUNS_LOG),
        "bootlog-invalid": FindingKind(_CONTRADICTION, "the boot log is not well-formed", _RUNS_LOG),
        "bootlog-too-large": FindingKind(_CONTRADICTION, "the boot log is beyond the limits", _RUNS_LOG),
        "bootlog-padded": FindingKind(_CONTRADICTION, "bytes follow the boot log that are no event", _RUNS_LOG),
        "log-padded": FindingKind(_CONTRADICTION, "bytes follow the boot log that are no event", _RUNS_LOG),
        "bootlog-sha1-only": FindingKind(
            _CONTRADICTION,
            "the boot log has SHA-1 digests only, which prove nothing",
            "switch the SHA-256 bank on in the firmware, and boot again",
        ),
        "bootlog-other-registers": FindingKind(
            _CONTRADICTION, "the boot log is of other registers than those of a TPM", _RUNS_LOG
        ),
        "canonical-log-invalid": FindingKind(_CONTRADICTION, "a canonical event log is not well-formed", _RUNS_LOG),
        "userspace-log-invalid": FindingKind(
            _CONTRADICTION, "systemd's log of what userspace measured is not well-formed", _RUNS_LOG
        ),
        "userspace-log-too-large": FindingKind(
            _CONTRADICTION, "systemd's log of what userspace measured is beyond the limits", _RUNS_LOG
        ),
        "bootlog-vendor-info-size": FindingKind(
            _CONTRADICTION, "the log's first event does not count its vendorInfo, which is excused for no model", _QUIRK
        ),
        "spec-id-vendor-info-size": FindingKind(
            _CONTRADICTION, "the log's first event does not count its vendorInfo", _QUIRK
        ),
        "exit-boot-services-missing": FindingKind(
            _CONTRADICTION, "the end of boot services was measured into PCR 5, and not logged", _QUIRK
        ),
        "bootlog-replay-mismatch": FindingKind(
            _CONTRADICTION,
            "the replay of the boot log does not give the quoted PCR values",
            "the log is not of this boot: see what writes it, and take it for an attack until then",
        ),
        "bootlog-data-mismatch": FindingKind(
            _CONTRADICTION, "the digest of an event is not of its data, though events of its kind hash it", _FORGED
        ),
        "event-data-mismatch": FindingKind(
            _CONTRADICTION, "the digest of an event is not of its data, though events of its kind hash it", _FORGED
        ),
        "crtm-version-invalid": FindingKind(
            _CONTRADICTION, "PCR 0 has not exactly one S-CRTM version whose digest covers it", _QUIRK
        ),
        "hcrtm-invalid": FindingKind(
            _CONTRADICTION, "an event of an H-CRTM that did not start the TPM, or is not the first", _FORGED
        ),
        "separator-duplicate": FindingKind(_CONTRADICTION, "a PCR has more than one separator", _FORGED),
        "separator-invalid": FindingKind(_CONTRADICTION, "the data of a separator is none", _FORGED),
        "separator-missing": FindingKind(_CONTRADICTION, "the firmware did not end its measurements of a PCR", _FORGED),
        "separator-retyped": FindingKind(
            _CONTRADICTION, "the digest of a separator stands under another event type", _FORGED
        ),
        "firmware-error": FindingKind(
            _WARNING,
            "the firmware reported an error in its separator",
            "look at the firmware's own error log, and boot again",
        ),
        "secure-boot-off": FindingKind(
            _WARNING,
            "the firmware did not enforce Secure Boot",
            "switch Secure Boot on in the firmware, and boot again",
        ),
        "secure-boot-unknown": FindingKind(
            _CONTRADICTION, "the log does not say whether Secure Boot was on", _FIRMWARE
        ),
        "secure-boot-event-unexpected": FindingKind(
            _CONTRADICTION, "PCR 7 has an event that does not belong there", _FORGED
        ),
        "secure-boot-variable-invalid": FindingKind(
            _CONTRADICTION, "a measured Secure Boot variable is malformed", _FORGED
        ),
        "secure-boot-variable-empty": FindingKind(
            _CONTRADICTION, "SecureBoot was measured without content, so nobody knows whether it was on", _QUIRK
        ),
        "secure-boot-variable-late": FindingKind(
            _CONTRADICTION, "a Secure Boot variable was measured after the separator", _FORGED
        ),
        "secure-boot-variable-repeated": FindingKind(
            _CONTRADICTION, "a Secure Boot variable was measured twice", _FORGED
        ),
        "authority-not-in-db": FindingKind(
            _CONTRADICTION, "an image was verified with what the measured db does not have", _FORGED
        ),
        "boot-application-early": FindingKind(
            _WARNING,
            "a boot application was measured before the firmware called one",
            "look at the boot entries of the firmware: something starts before the image; or it is known for it",
        ),
        "uki-event-unexpected": FindingKind(
            _CONTRADICTION, "PCR 11 has a measurement that is no section of a unified kernel image", _IMAGE
        ),
        "uki-section-repeated": FindingKind(
            _CONTRADICTION, "a section of the unified kernel image was measured twice", _IMAGE
        ),
        "grub-command-line-unproven": FindingKind(
            _CONTRADICTION,
            "what GRUB's events call a command line and what their digests are of differ",
            "look at GRUB's configuration, and take it for an attack until it is explained",
        ),
        # --- the TPM's clock and counters
        "rebooted": FindingKind(_INFORMATION, "the node booted since its last accepted round", "nothing"),
        "reset-unannounced": FindingKind(
            _INFORMATION,
            "an open box was reset or asleep, and nobody announced it; by the default policy the node is not trusted",
            "look at the box; if it is as it was: umec node clear-reset",
        ),
        "clock-unsafe": FindingKind(
            _INFORMATION, "the TPM lost power; its clock may have gone back before this boot", "nothing"
        ),
        "clock-unsafe-long": FindingKind(
            _WARNING,
            "the TPM's clock is still not safe, hours after its reset",
            "let the TPM run; if it stays so, replace it",
        ),
        "clock-fell": FindingKind(_CONTRADICTION, "the TPM's clock fell within one boot", _WENT_BACK),
        "reset-count-fell": FindingKind(_CONTRADICTION, "resetCount fell", _WENT_BACK),
        "restart-count-fell": FindingKind(_CONTRADICTION, "restartCount fell within one boot", _WENT_BACK),
        "firmware-version-fell": FindingKind(
            _CONTRADICTION,
            "the TPM's firmwareVersion fell",
            "somebody put an older firmware onto the TPM: update it",
        ),
        # --- applications that were started
        "start-undecided": FindingKind(
            _CONTRADICTION,
            "an application was started by a decision that the site's admission did not sign",
            "somebody on the node starts what the site did not admit: take it for an attack; boot the node",
        ),
        "start-of-another-node": FindingKind(
            _CONTRADICTION,
            "an application was started by a decision for another node",
            "somebody carried a decision from one node to another: take it for an attack; boot the node",
        ),
        "start-not-as-decided": FindingKind(
            _CONTRADICTION,
            "an application was started for another tenant, as another instance or of another image than was decided",
            "somebody on the node starts what the site did not admit: take it for an attack; boot the node",
        ),
        "start-decision-expired": FindingKind(
            _CONTRADICTION,
            "an application was started by a decision that was not valid at that time",
            "look at the node's clock; if it is right, somebody uses old decisions: take it for an attack",
        ),
        "start-log-missing": FindingKind(
            _CONTRADICTION,
            "applications were started, and the log of their starts did not come along",
            "see that the agent is one that keeps it, and may read its folder",
        ),
        "start-log-refused": FindingKind(_CONTRADICTION, "the log of starts cannot be believed", _STARTS),
        "start-log-invalid": FindingKind(
            _CONTRADICTION, "PCR 15 was extended with what is no start of an application", _STARTS
        ),
        "start-log-mismatch": FindingKind(
            _CONTRADICTION, "the replay of the log of starts does not give the quoted PCR 15", _STARTS
        ),
        "start-log-outdated": FindingKind(
            _CONTRADICTION,
            "what was judged before is of another boot: the log of starts is needed from its beginning",
            "nothing: the next challenge asks for the whole log",
        ),
        # --- runtime measurements (IMA)
        "ima-missing": FindingKind(
            _CONTRADICTION,
            "the reference set says what may run, and there is no list of what ran",
            "see that the kernel measures (ima_policy=) and that the agent may read its list",
        ),
        "ima-empty": FindingKind(_CONTRADICTION, "the list of what ran has no entry", _LIST),
        "ima-template-unknown": FindingKind(
            _CONTRADICTION, "the list of what ran has a template that no kernel known to us writes", _LIST
        ),
        "ima-checkpoint-outdated": FindingKind(
            _CONTRADICTION,
            "what was judged before is of another boot, policy or bank: the list is needed from its start",
            "nothing: the next challenge asks for the whole list",
        ),
        "ima-refused": FindingKind(_CONTRADICTION, "the list of what ran cannot be believed", _LIST),
        "ima-invalid": FindingKind(
            _CONTRADICTION, "the list of what ran is not well-formed, or has a template that we do not know", _LIST
        ),
        "ima-replay-mismatch": FindingKind(
            _CONTRADICTION, "the replay of the list of what ran does not give the quoted PCR 10", _LIST
        ),
        "ima-aggregate-mismatch": FindingKind(
            _CONTRADICTION, "the list of what ran began on another boot than the quoted one", _LIST
        ),
        "ima-nothing-measured": FindingKind(
            _CONTRADICTION,
            "the list of what ran has boot_aggregate alone: the kernel has no policy that says what to measure",
            "have the kernel measure: ima_policy=tcb on its command line",
        ),
        "ima-required-missing": FindingKind(
            _CONTRADICTION,
            "a file that the reference set requires is not in the list: the kernel was not given its own policy",
            "boot the image of the reference set; look at its console, which says why the policy was not taken",
        ),
        "ima-kexec": FindingKind(
            _CONTRADICTION,
            "another kernel was started by kexec, past firmware and boot loader",
            'boot the node; where kexec is meant, have the reference set say "kexec": "allow"',
        ),
        "ima-file-unknown": FindingKind(
            _CONTRADICTION, "a file ran, or was read as root, that is neither listed, excluded nor signed", _FILE
        ),
        "ima-file-changed": FindingKind(
            _CONTRADICTION, "a listed file ran with another content than those listed", _FILE
        ),
        "ima-buffer-unknown": FindingKind(
            _CONTRADICTION, "the kernel was given a key, a command line or a policy that is not listed", _FILE
        ),
        "ima-path-invalid": FindingKind(_CONTRADICTION, "the name of a file is no path that the kernel gives", _LIST),
        "ima-digest-weak": FindingKind(_CONTRADICTION, "a file was measured with a weak hash", _HASH),
        "ima-digest-unknown": FindingKind(_CONTRADICTION, "a file was measured with an unknown hash", _HASH),
        "ima-key-unknown": FindingKind(
            _CONTRADICTION, "a file is signed with a key that the reference set does not name", _FILE
        ),
        "ima-key-revoked": FindingKind(
            _CONTRADICTION, "a file is signed with a key that the reference set revokes", _FILE
        ),
        "ima-signature-invalid": FindingKind(_CONTRADICTION, "the signature of a file does not verify", _FILE),
        "ima-signature-unsupported": FindingKind(
            _CONTRADICTION, "a file has a signature of a kind that proves nothing about its content", _FILE
        ),
        "ima-violation": FindingKind(
            _CONTRADICTION,
            "a file changed while it was measured, so nobody knows what ran",
            "see what writes to this file while it is read; exclude it, if it is data",
        ),
        "ima-violation-tolerated": FindingKind(
            _WARNING,
            "a file changed while it was measured, and the reference set tolerates it",
            "see what writes to this file while it is read; exclude it, if it is data",
        ),
    }
)
