"""A machine is switched on and off, and its power is cut; nothing of it stays behind."""

import shutil
from pathlib import Path

import pytest

from umec_attest.testing.swtpm import SoftwareTpm
from umec_images.machine import Machine, NodeImageFolder, install
from umec_images.machine.errors import MachineFailed, MachineSilent

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")


@pytest.fixture
def node(tmp_path: Path, image: NodeImageFolder) -> Path:
    """A node whose disk no firmware starts, and that has a TPM."""
    install(image, tmp_path / "node")
    with SoftwareTpm(tmp_path / "node" / "tpm"):
        pass
    shutil.copyfile(FIRMWARE.with_name("OVMF_VARS_4M.fd"), tmp_path / "node" / "vars.fd")
    return tmp_path / "node"


def test_a_node_without_a_tpm_is_not_switched_on(tmp_path: Path, image: NodeImageFolder) -> None:
    install(image, tmp_path)
    machine = Machine(tmp_path, image.firmware)
    with pytest.raises(MachineFailed) as refused:
        machine.start()
    assert refused.value.code == "machine-failed"
    assert "no software TPM" in refused.value.detail
    assert not machine.running


@pytest.mark.vm
def test_it_is_on_and_off(node: Path) -> None:
    machine = Machine(node, FIRMWARE)
    with machine:
        assert machine.running
        with pytest.raises(MachineFailed):
            machine.start()
        first = next(machine.lines(seconds=300))
        assert "BdsDxe" in first.text
        assert first.after > 0
    assert not machine.running
    assert "BdsDxe" in machine.console_log.read_text(errors="replace")


@pytest.mark.vm
def test_power_can_be_cut_and_comes_back(node: Path) -> None:
    machine = Machine(node, FIRMWARE)
    machine.start()
    machine.cut()
    machine.cut()
    assert not machine.running
    with machine:
        assert machine.running


@pytest.mark.vm
def test_silence_and_an_end_are_told(node: Path) -> None:
    with Machine(node, FIRMWARE) as machine, pytest.raises(MachineSilent) as silent:
        list(machine.lines(seconds=0))
    assert silent.value.code == "machine-silent"
    (node / "disk.img").unlink()
    with Machine(node, FIRMWARE) as machine, pytest.raises(MachineFailed) as failed:
        list(machine.lines(seconds=300))
    assert "disk.img" in failed.value.detail
