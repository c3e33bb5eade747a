"""The simulated firmware: what it extends is what its log says, judged by tpm2_eventlog, which is not ours."""

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent.tpm import Tpm
from umec_attest.testing import adversary, firmware
from umec_attest.testing.errors import HarnessFailed, ImageInvalid
from umec_attest.testing.eventlog import split_log
from umec_attest.testing.image import Tamper, load_image, make_image, tampered
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.pe import authenticode_sha256, is_pe, make_pe, pe_sections, section_bytes
from umec_attest.testing.swtpm import SoftwareTpm

PCRS = tuple(range(16))


def replayed_elsewhere(log: Path) -> dict[int, bytes]:
    said = subprocess.run(["tpm2_eventlog", str(log)], capture_output=True, text=True, check=True).stdout
    return {
        int(index): bytes.fromhex(value)
        for index, value in re.findall(r"^ +(\d+) +: 0x([0-9a-f]{64})$", said, re.MULTILINE)
    }


def read(tpm: SoftwareTpm) -> dict[int, bytes]:
    with Tpm(tpm.tcti) as reader:
        return dict(reader.read_pcrs(PCRS))


def test_a_folder_that_misses_a_part_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path)
    (tmp_path / "efivars" / "dbx").rename(tmp_path / "dbx")
    with pytest.raises(ImageInvalid) as refused:
        load_image(tmp_path)
    assert refused.value.code == "node-image-invalid"
    (tmp_path / "dbx").rename(tmp_path / "efivars" / "dbx")
    load_image(tmp_path)


def test_a_second_boot_needs_a_reset(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    make_image(tmp_path)
    log = firmware.boot(software_tpm, tmp_path)
    with pytest.raises(HarnessFailed) as refused:
        firmware.boot(software_tpm, tmp_path)
    assert refused.value.code == "harness-failed"
    software_tpm.power_cycle()
    assert firmware.boot(software_tpm.tcti, tmp_path) == log


def test_the_log_replays_to_the_pcrs(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    make_image(tmp_path)
    log = tmp_path / "log.bin"
    assert firmware.boot(software_tpm, tmp_path, log=log) == log.read_bytes()
    values = read(software_tpm)
    replayed = replayed_elsewhere(log)
    assert set(replayed) == {0, 1, 2, 3, 4, 5, 6, 7, 11}
    assert {index: values[index] for index in replayed} == replayed
    assert {index for index, value in values.items() if value == bytes(32)} == set(PCRS) - set(replayed)


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        (Tamper.FIRMWARE, {0}),
        (Tamper.SECURE_BOOT, {7}),
        (Tamper.CMDLINE, {4, 11}),
        (Tamper.INITRD, {4, 11}),
        (Tamper.KERNEL, {4, 11}),
    ],
)
def test_each_changed_stage_shows_where_it_must(tmp_path: Path, what: Tamper, changed: set[int]) -> None:
    image = load_image(make_image(tmp_path))
    plain = list(firmware.measurements(image))
    other = list(firmware.measurements(tampered(image, what)))

    def extended(made: list[firmware.Measurement], pcr: int) -> list[bytes]:
        return [measurement.digest for measurement in made if measurement.pcr == pcr]

    assert {pcr for pcr in range(24) if extended(plain, pcr) != extended(other, pcr)} == changed


def test_a_kernel_that_is_no_image_is_not_measured_as_one(tmp_path: Path) -> None:
    image = load_image(make_image(tmp_path))
    plain = [measurement.pcr for measurement in firmware.measurements(image)]
    assert plain.count(4) == 4
    uki = make_pe({".osrel": b"o", ".cmdline": b"c", ".initrd": b"i", ".linux": b"no image"})
    image.variables.clear()
    image.variables.update(load_image(tmp_path).variables)
    (tmp_path / "uki.efi").write_bytes(uki)
    assert [measurement.pcr for measurement in firmware.measurements(load_image(tmp_path))].count(4) == 3


def test_adversary_moves_change_what_they_say(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    log = firmware.boot(software_tpm, make_image(tmp_path))
    parts = split_log(log)
    assert b"".join(parts) == log
    assert adversary.truncate_log(log) == b"".join(parts[:-1])
    assert len(split_log(adversary.drop_event(log, 3))) == len(parts) - 1
    assert adversary.swap_events(adversary.swap_events(log, 2, 3), 3, 2) == log
    retyped = adversary.retype_event(log, 4, 6)
    assert retyped != log
    assert len(retyped) == len(log)
    before = read(software_tpm)
    adversary.extend_pcr(software_tpm, 11)
    assert {index for index, value in read(software_tpm).items() if value != before[index]} == {11}


def test_relabelled_values_look_right_and_are_quoted_elsewhere(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    firmware.boot(software_tpm, make_image(tmp_path))
    good = read(software_tpm)
    adversary.extend_pcr(software_tpm, 11)
    with SoftwareNode(software_tpm) as node:
        made = adversary.quote_relabelled(node, bytes(32), [4, 7, 11], {11: 16}, good=good)
        assert made.pcrs == {index: good[index] for index in (4, 7, 11)}
        assert made.quote.attest != node.quote(bytes(32), [4, 7, 11]).quote.attest


@given(
    st.dictionaries(st.sampled_from([".osrel", ".cmdline", ".initrd", ".linux", ".uname"]), st.binary(max_size=2000))
)
def test_every_image_reads_back(sections: dict[str, bytes]) -> None:
    image = make_pe(sections)
    assert is_pe(image)
    assert [section.name for section in pe_sections(image)] == [".text", *sections]
    assert {name: section_bytes(image, name) for name in sections} == sections
    assert len(authenticode_sha256(image)) == 32


@given(st.binary(max_size=600), st.integers(0, 600), st.binary(max_size=40))
def test_any_bytes_are_an_image_or_its_one_error(noise: bytes, at: int, patch: bytes) -> None:
    image = make_pe({".linux": b"kernel"})
    for candidate in (noise, image[:at] + patch + image[at + len(patch) :], image[:at]):
        with contextlib.suppress(ImageInvalid):
            pe_sections(candidate)
            authenticode_sha256(candidate)
