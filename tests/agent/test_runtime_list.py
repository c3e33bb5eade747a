"""What the agent reads of the kernel's list: whole entries from a number on, however large the pieces are."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent import runtime_list
from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.runtime_list import MAX_RUNTIME_LIST, read_runtime_list
from umec_attest.testing.runtime import measured, raw_entry

LEGACY = raw_entry(bytes(276), "ima")[:31] + bytes(20) + struct.pack("<I", 10) + b"/sbin/init"
ENTRIES = [
    measured("boot_aggregate", bytes(32)),
    measured("/usr/bin/one", bytes(32)),
    LEGACY,
    measured("/usr/bin/two", bytes(32), b"signature", template="ima-sig"),
    measured("/usr/bin/three", bytes(32)),
]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"".join(ENTRIES))
    return path


@pytest.mark.parametrize("piece", [1, 7, 64, 65536])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5, 6])
def test_entries_from_a_number_on(written, start, piece, monkeypatch):
    monkeypatch.setattr(runtime_list, "_PIECE", piece)
    assert read_runtime_list(written, start) == (b"".join(ENTRIES[start:]), False)


def test_an_entry_that_is_being_written_is_left_for_the_next_round(written):
    written.write_bytes(b"".join(ENTRIES)[:-1])
    assert read_runtime_list(written, 3) == (ENTRIES[3], False)


def test_a_list_that_is_too_long_to_send_at_once(written):
    size = len(b"".join(ENTRIES[1:]))
    assert read_runtime_list(written, 1, most=size) == (b"".join(ENTRIES[1:]), False)
    assert read_runtime_list(written, 1, most=size - 1) == (b"".join(ENTRIES[1:-1]), True)
    assert MAX_RUNTIME_LIST < 744 * 1024


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(AgentStateInvalid, match="cannot be read"):
        read_runtime_list(tmp_path / "none", 0)


def test_a_file_that_is_no_list(written, monkeypatch):
    monkeypatch.setattr(runtime_list, "MAX_ENTRY", 100)
    written.write_bytes(b"\xff" * 200)
    with pytest.raises(AgentStateInvalid, match="no list"):
        read_runtime_list(written, 0)


@given(data=st.binary(max_size=300), start=st.integers(0, 3))
def test_any_file_gives_a_part_of_it(data, start, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any-list"
    path.write_bytes(data)
    part, more = read_runtime_list(path, start)
    assert part in data
    assert not more
