"""The power goes at any moment of an update: what starts then is whole, and running the update again finishes it."""

import contextlib
import struct

import pytest

from umec_images.machine.errors import DiskUnreadable
from umec_images.update import Outcome, Phase, carry_out, confirm, plan, settled, survey

CUTS = 200


def fresh(_node, _images):
    """Version 1, as it was built; 2 comes."""
    return 1, 2


def once_updated(node, images):
    """Version 2 is confirmed, 1 is in the other slot; 3 takes its place."""
    apply(node, images, 2)
    return 2, 3


def staged(node, images):
    """Version 2 is staged, and has not been tried; 3 takes its place."""
    carry_out(plan(node, images[2].image, None), node.firmware)
    return 1, 3


def fallen_back(node, images):
    """Version 2 was tried, and did not come; 3 takes its place."""
    carry_out(plan(node, images[2].image, None), node.firmware)
    node.variables.pop("BootNext")
    settled(node, images[1].root_hash)
    return 1, 3


def twice_updated(node, images):
    """Everything has been written over once."""
    apply(node, images, 2)
    apply(node, images, 3)
    return 3, 4


BEFORE = (fresh, once_updated, staged, fallen_back, twice_updated)


def apply(node, images, version):
    carry_out(plan(node, images[version].image, None), node.firmware)
    assert node.start().version == version
    settled(node, images[version].root_hash)
    confirm(node, images[version].root_hash)


def once(node, images, old, new):
    """As a node does it: update, start, settle, confirm."""
    if survey(node).confirmed.version == old:
        carry_out(plan(node, images[new].image, None, again=True), node.firmware)
        assert node.start().version == new
        settled(node, images[new].root_hash)
        confirm(node, images[new].root_hash)
    settled(node, images[new].root_hash)


def starts(node, *versions):
    """Start it once; before, look at what it starts when the firmware has forgotten what it was asked for."""
    asked = node.variables.pop("BootNext", None)
    confirmed = node.start().version
    assert confirmed in versions
    assert survey(node).confirmed.version == confirmed
    if asked is not None:
        node.variables["BootNext"] = asked
    return node.start()


@pytest.mark.parametrize("before", BEFORE, ids=lambda each: each.__name__)
def test_no_power_cut_leaves_a_disk_that_does_not_start(make_node, images, before):
    first = make_node()
    old, new = before(first, images)
    length = operations(first.twin(), images, old, new)
    for seed in range(CUTS // len(BEFORE)):
        node, chance = first.twin(), first.chance(f"{before.__name__}{seed}")
        for _ in range(chance.randint(1, 3)):
            node.flush()
            node.operations, node.cut_after = 0, chance.randrange(length)
            with contextlib.suppress(node.power_cut):
                once(node, images, old, new)
            node.lose(chance)
            runs = starts(node, old, new)
            assert runs.version in {old, new, 2}
            _, outcome = settled(node, runs.root_hash)
            if outcome is Outcome.ON_TRIAL and runs.version == new and chance.random() < 0.5:
                confirm(node, runs.root_hash)
        once(node, images, old, new)
        assert starts(node, new).version == new
        assert survey(node).record.phase is Phase.NONE
        assert survey(node).other.version == old
        sound(node)


def operations(node, images, old, new):
    """Return how many operations the whole of it has, when nothing happens."""
    once(node, images, old, new)
    return node.operations


def sound(node):
    """Both tables are the same, and each cluster that is taken belongs to a file or a folder."""
    esp = survey(node).esp
    second = esp.area.read(esp.table_start + esp.table_size, esp.table_size)
    assert second == esp.table
    entries = struct.unpack_from(f"<{esp.count + 2}I", esp.table)
    taken = len(entries) - entries.count(0) - 2  # two entries are of no cluster
    used = [n for file in esp.files.values() for n in file.clusters]
    used += [n for clusters in esp.folders.values() for n in clusters]
    assert len(used) == len(set(used)) == taken


def test_a_writer_without_barriers_would_be_caught(make_node, images, monkeypatch):
    """The same cuts against an updater that waits for nothing: the confirmed image dies."""
    dead = 0
    for seed in range(20):
        node = make_node()
        monkeypatch.setattr(node, "flush", lambda: None)
        once(node, images, 1, 2)
        node.lose(node.chance(seed))
        node.variables.clear()
        try:
            node.start()
        except (node.dead, DiskUnreadable):
            dead += 1
    assert dead
