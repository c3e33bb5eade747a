"""How far a boot came: read from lines that real boots wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.machine import DOCUMENTED, Documented, End, Progress, Stage, faults
from umec_images.machine.progress import PRINTED

FOUND = 'BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)'
STARTED = 'BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)'
DENIED = 'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0): Access Denied'
KERNEL = "[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)"
ROOT = f"umec-node: root {'ab' * 32} from root-a"
CORRUPTED = "[    8.150022] device-mapper: verity: 254:2: data block 0 is corrupted"
PANIC = "[    8.153112] Kernel panic - not syncing: dm-verity device corrupted"
NOTHING = "BdsDxe: No bootable option or device was found."


def after(*lines: str) -> Progress:
    progress = Progress()
    for line in lines:
        progress.line(line)
    return progress


def values(**other: str) -> list[str]:
    """The lines of PCR values: the number as a byte, or what is given for it."""
    return [f"umec-node: pcr {number} {other.get(f'p{number}', f'{number:02x}' * 32)}" for number in PRINTED]


EXPECTED = {number: bytes([number]) * 32 for number in PRINTED}


@pytest.mark.parametrize(
    ("lines", "stage", "end"),
    [
        ([], Stage.POWER, None),
        ([FOUND], Stage.FIRMWARE, None),
        ([FOUND, STARTED, KERNEL], Stage.KERNEL, None),
        ([FOUND, STARTED, KERNEL, ROOT], Stage.ROOT, None),
        ([FOUND, DENIED, NOTHING], Stage.FIRMWARE, End.SIGNATURE),
        ([NOTHING], Stage.POWER, End.NOTHING),
        ([FOUND, STARTED, KERNEL, CORRUPTED, PANIC], Stage.KERNEL, End.VERITY),
        ([FOUND, STARTED, KERNEL, PANIC], Stage.KERNEL, End.PANIC),
    ],
)
def test_a_boot_is_known_by_its_lines(lines: list[str], stage: Stage, end: End | None) -> None:
    progress = after(*lines)
    assert (progress.stage, progress.end) == (stage, end)
    assert progress.said == (
        next(line for line in lines if line in {DENIED, CORRUPTED, PANIC, NOTHING}) if end else None
    )


def test_each_stage_is_told_once() -> None:
    progress = Progress()
    told = [progress.line(line) for line in (FOUND, FOUND, STARTED, FOUND, KERNEL, ROOT, KERNEL)]
    assert told == [Stage.FIRMWARE, None, Stage.STUB, None, Stage.KERNEL, Stage.ROOT, None]


def test_values_are_complete_when_all_were_said() -> None:
    lines = values()
    assert after(*lines).pcrs == EXPECTED
    assert after(*lines).measured
    assert not after(*lines[1:]).measured


@given(text=st.text(max_size=300))
def test_any_line_can_be_taken(text: str) -> None:
    progress = after(text, f"umec-node: pcr {text}")
    assert len(progress.pcrs) <= 1


GOOD = [FOUND, STARTED, KERNEL, ROOT]
OUTCOMES = {
    None: [*GOOD, *values()],
    "kernel": [FOUND, DENIED],
    "cmdline": [FOUND, DENIED],
    "initrd": [FOUND, DENIED],
    "root": [FOUND, STARTED, KERNEL, CORRUPTED],
    "keys": [*GOOD, *values(p4="ee" * 32, p7="ee" * 32, p11="ee" * 32)],
    "firmware-vars": [*GOOD, *values(p7="ee" * 32)],
    "downgrade": [*GOOD, *values(p4="ee" * 32, p11="ee" * 32)],
}


def test_all_that_is_documented_is_tried_here() -> None:
    assert set(OUTCOMES) == set(DOCUMENTED)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_what_is_documented_has_no_fault(kind: str | None) -> None:
    assert faults(DOCUMENTED[kind], after(*OUTCOMES[kind]), EXPECTED) == []


@pytest.mark.parametrize(("kind", "other"), [(kind, other) for kind in OUTCOMES for other in OUTCOMES])
def test_no_outcome_is_taken_for_another(kind: str | None, other: str | None) -> None:
    if DOCUMENTED[kind] == DOCUMENTED[other]:
        return
    assert faults(DOCUMENTED[kind], after(*OUTCOMES[other]), EXPECTED) != []


@pytest.mark.parametrize("kind", [None, "keys", "firmware-vars", "downgrade"])
def test_a_value_that_was_not_said_is_a_fault(kind: str | None) -> None:
    lines = [line for line in OUTCOMES[kind] if "pcr 7 " not in line]
    assert faults(DOCUMENTED[kind], after(*lines), EXPECTED) == ["it did not say what PCR 7 is"]


def test_faults_are_named() -> None:
    documented = Documented(None, Stage.ROOT, differ=frozenset({4}), same=frozenset({7}))
    said = faults(documented, after(FOUND, DENIED, *values(p7="ee" * 32)), EXPECTED)
    assert said == [
        "it was ended by signature, and not by nothing",
        "it reached the stage firmware, and not root",
        "PCR 4 is what the image promises",
        "PCR 7 differs from what the image promises",
    ]


def test_a_boot_that_goes_further_than_asked_is_as_documented() -> None:
    lines = [*OUTCOMES[None], "umec-node: agent enrolled"]
    assert after(*lines).stage is Stage.AGENT
    assert faults(DOCUMENTED[None], after(*lines), EXPECTED) == []
    assert faults(DOCUMENTED["root"], after(FOUND, STARTED, KERNEL, ROOT, CORRUPTED), EXPECTED) != []
