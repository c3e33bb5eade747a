"""The copy of who a node is, in an area of its disk outside of what is encrypted."""

from pathlib import Path

import pytest

from umec_attest.agent.keepsake import SIZE, Keepsake


@pytest.fixture
def area(tmp_path: Path) -> Path:
    path = tmp_path / "area"
    path.write_bytes(bytes(SIZE))
    return path


def test_a_state_is_kept_and_kept_anew_when_it_changes(area: Path, tmp_path: Path) -> None:
    keepsake, state = Keepsake(area, tmp_path), tmp_path / "node.json"
    assert not keepsake.keep()
    for content in (b'{"node": "pole-17", "more": 1}\n', b'{"node": "pole-17"}\n'):
        state.write_bytes(content)
        keepsake.heard({"event": "round"})
        assert area.read_bytes() == content.ljust(SIZE, b"\0")
        assert not keepsake.keep()
    assert not Keepsake(area, tmp_path).keep()  # it is there from the boot before


def test_without_an_area_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(b"{}\n")
    assert not Keepsake(tmp_path / "area", tmp_path).keep()
    assert not (tmp_path / "area").exists()


def test_a_state_that_does_not_fit_is_not_kept_in_part(area: Path, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(b"x" * SIZE)
    assert not Keepsake(area, tmp_path).keep()
    assert area.read_bytes() == bytes(SIZE)
    (tmp_path / "node.json").write_bytes(b"x" * (SIZE - 1))
    assert Keepsake(area, tmp_path).keep()
