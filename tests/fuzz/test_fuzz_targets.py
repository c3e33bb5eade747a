"""Fuzzing begins with inputs that are understood, notices what is none of a target's errors, and forgets no find."""

from pathlib import Path

import pytest
import targets
from seeds import make_seeds

REGRESSIONS = Path(__file__).parent / "regressions"
FINDS = sorted(path for path in REGRESSIONS.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def understood(name: str, data: bytes) -> bool:
    """Run a target as the fuzzer does; what is not its error is raised."""
    target = targets.TARGETS[name]
    try:
        target.run(data)
    except target.errors:
        return False
    return True


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_understands_a_seed_and_refuses_what_is_cut_short(name, seeds):
    assert all(len(seed) <= targets.TARGETS[name].longest for seed in seeds[name])
    whole = [seed for seed in seeds[name] if understood(name, seed)]
    assert whole
    cut = [whole[0][:size] for size in range(0, len(whole[0]), max(1, len(whole[0]) // 50))]
    for data in [*cut, b"\xff" * 64, bytes(64)]:
        understood(name, data)


def test_every_seed_is_for_a_target(seeds):
    assert set(seeds) == set(targets.TARGETS)


def test_what_was_found_is_mended():
    for find in FINDS:
        understood(find.parent.name, find.read_bytes())


def test_bytes_that_come_back_otherwise_are_a_find():
    class Read:
        def to_bytes(self) -> bytes:
            return b"otherwise"

    with pytest.raises(targets.Unfaithful):
        targets.exact(lambda _data: Read())(b"as it came")
    targets.exact(lambda _data: Read())(b"otherwise")
