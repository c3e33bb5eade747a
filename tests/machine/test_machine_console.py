"""The serial console: bytes of a firmware and a kernel become lines, however they come."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.machine.console import MAX_LINE, Console

FIRMWARE = (
    b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001\r\nEFI stub: Measured initrd\r\n"
    b"[    0.000000] Linux version 6.1\r\n"
)
LINES = ["BdsDxe: loading Boot0001", "EFI stub: Measured initrd", "[    0.000000] Linux version 6.1"]


def test_what_a_firmware_paints_is_no_text() -> None:
    assert Console().feed(FIRMWARE) == LINES


@pytest.mark.parametrize(
    "painted", ["\x9b2J", "\u202eb", "\u2066b", "\x1b[31mb", "\x1b\x1b]0;b\x07", "\x85b", "\u2028b", "\x7f\x00b"]
)
def test_a_guest_paints_nothing_on_the_terminal_of_its_operator(painted: str) -> None:
    [line] = Console().feed(f"a\t{painted}\u00e4\n".encode())
    assert line.startswith("a\t")
    assert line.endswith("\u00e4")
    assert line.replace("\t", "").isprintable()


@given(cuts=st.lists(st.integers(0, len(FIRMWARE)), max_size=12))
def test_lines_do_not_depend_on_how_they_come(cuts: list[int]) -> None:
    console = Console()
    places = [0, *sorted(cuts), len(FIRMWARE)]
    lines = [line for begin, end in pairwise(places) for line in console.feed(FIRMWARE[begin:end])]
    assert lines + console.close() == LINES


def test_a_line_that_was_never_ended_is_the_last() -> None:
    console = Console()
    assert console.feed(b"one\ntwo") == ["one"]
    assert console.close() == ["two"]
    assert console.close() == []


def test_a_line_without_an_end_is_not_kept() -> None:
    console = Console()
    for _ in range(100):
        assert console.feed(b"x" * MAX_LINE) == []
    assert console.feed(b"\nnext\n") == ["x" * MAX_LINE, "next"]


@given(chunks=st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_lines_without_controls(chunks: list[bytes]) -> None:
    console = Console()
    lines = [line for chunk in chunks for line in console.feed(chunk)] + console.close()
    assert all(character.isprintable() or character == "\t" for line in lines for character in line)
    assert all(len(line) <= MAX_LINE for line in lines)
