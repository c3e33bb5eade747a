"""The board: what QEMU is told. Each of these would change what is measured, or who may change it."""

from pathlib import Path

import pytest

from umec_images.machine.hardware import Hardware, command_line

BOARD = Hardware(Path("/fw/code.fd"), Path("/node/vars.fd"), Path("/node/disk.img"), Path("/run/tpm"))


@pytest.mark.parametrize(
    "option",
    [
        "-machine q35,smm=on",
        "-accel tcg,thread=multi",
        "-global driver=cfi.pflash01,property=secure,value=on",
        "-drive if=pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd",
        "-drive if=pflash,unit=1,format=raw,file=/node/vars.fd",
        "-device virtio-blk-pci,drive=disk,bootindex=1",
        "-device virtio-net-pci,netdev=uplink,romfile=",
        "-netdev user,id=uplink,restrict=on",
        "-device tpm-tis,tpmdev=tpm",
        "-no-reboot",
        "-nodefaults",
    ],
)
def test_the_board_has(option: str) -> None:
    assert option in " ".join(command_line(BOARD))


def test_it_reaches_others_only_where_that_is_asked() -> None:
    asked = Hardware(BOARD.firmware, BOARD.variables, BOARD.disk, BOARD.tpm, network=True)
    assert "user,id=uplink,restrict=off" in command_line(asked)
    assert "user,id=uplink,restrict=off" not in command_line(BOARD)


def test_it_has_a_second_network_only_where_that_is_asked() -> None:
    asked = Hardware(BOARD.firmware, BOARD.variables, BOARD.disk, BOARD.tpm, access="tap0,script=/bin/sh")
    added = set(command_line(asked)) - set(command_line(BOARD))
    assert added == {
        "tap,id=access,ifname=tap0,,script=/bin/sh,script=no,downscript=no",
        "virtio-net-pci,netdev=access,romfile=",
    }


def test_a_path_cannot_become_an_option() -> None:
    odd = Hardware(BOARD.firmware, BOARD.variables, Path("/node,readonly=on/disk.img"), BOARD.tpm)
    assert "if=none,id=disk,format=raw,file=/node,,readonly=on/disk.img" in command_line(odd)


def test_what_is_handed_in_has_a_name_of_ours() -> None:
    given = Hardware(BOARD.firmware, BOARD.variables, BOARD.disk, BOARD.tpm, handed_in=[("ticket", Path("/t,1"))])
    line = command_line(given)
    assert line[line.index("-fw_cfg") + 1] == "name=opt/umec/ticket,file=/t,,1"
    assert "-fw_cfg" not in command_line(BOARD)
