"""Initrds: whether the kernel measures what runs in them, and which files they have, by another writer of cpio."""

import gzip
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict import initrd
from umec_attest.predict.initrd import initrd_files, is_measured

FILE, FOLDER, LINK = 0o100644, 0o040755, 0o120777


def member(name, content=b"", mode=FILE, links=1, magic=b"070701"):
    encoded = name if isinstance(name, bytes) else name.encode()
    fields = [1, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded) + 1, 0]
    head = magic + b"".join(b"%08X" % value for value in fields) + encoded + b"\0"
    head += bytes(-len(head) % 4)
    return head + content + bytes(-len(content) % 4)


END = member("TRAILER!!!", mode=0)
GOOD = member(".", mode=FOLDER) + member("./init", b"first") + member("bin/sh", b"busybox", mode=LINK) + END


def digest(content):
    return hashlib.sha256(content).hexdigest()


def refused(data, why):
    with pytest.raises(ImageFolderInvalid, match=why) as caught:
        initrd_files(data)
    assert caught.value.code == "image-folder-invalid"
    assert initrd_files(GOOD) == {"/init": digest(b"first")}


def test_files_by_their_paths():
    data = member("/a b", b"12345") + member("x/y", b"", magic=b"070702") + END + bytes(7)
    expected = {"/a_b": digest(b"12345"), "/x/y": digest(b"")}
    for packed in (data, gzip.compress(data), gzip.compress(data) + bytes(3)):
        assert initrd_files(packed) == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no archive"),
        (b"\x28\xb5\x2f\xfd", "no archive"),
        (GOOD[: -len(END)], "no archive"),
        (b"070703" + GOOD[6:], "no archive"),
        (GOOD[:6] + b"zzzzzzzz" + GOOD[14:], "header"),
        (GOOD[:54] + b"-0000711" + GOOD[62:], "header"),  # a size that led back to the same member, for ever
        (GOOD[:54] + b" 0000005" + GOOD[62:], "header"),
        (member("init", b"first")[:-4], "ends beyond"),
        (member("init", b"first", links=2) + END, "hard links"),
        (member(b"\xff") + END, "UTF-8"),
        (GOOD + b"x", "after its end"),
        (GOOD + GOOD, "after its end"),
        (gzip.compress(GOOD)[:-1], "not one gzipped archive"),
        (gzip.compress(GOOD) + gzip.compress(GOOD), "not one gzipped archive"),
        (b"\x1f\x8b" + bytes(20), "unpacked"),
    ],
)
def test_one_fault(data, why):
    refused(data, re.escape(why))


def test_links_and_folders_with_many_names_are_no_hard_links():
    assert initrd_files(member("bin", mode=FOLDER, links=3) + GOOD)


def test_more_than_the_limits(monkeypatch):
    packed = gzip.compress(GOOD)
    monkeypatch.setattr(initrd, "MAX_UNPACKED", len(GOOD))
    assert initrd_files(packed)
    monkeypatch.setattr(initrd, "MAX_UNPACKED", len(GOOD) - 1)
    with pytest.raises(ImageFolderInvalid, match="at most"):
        initrd_files(packed)
    monkeypatch.setattr(initrd, "MAX_FILES", 1)
    assert initrd_files(GOOD)
    with pytest.raises(ImageFolderInvalid, match="more than 1 files"):
        initrd_files(member("a") + GOOD)


@pytest.mark.parametrize(
    ("line", "measured"),
    [
        ("ro panic=1", False),
        ("root=/dev/mapper/root ro", True),
        ("ro root=", False),
        ("roothash=abc", False),
        ("noroot=/dev/x", False),
        ("rootfstype=ramfs", True),
        ("rootfstype=tmpfs", False),
        ("rootfstype=ramfs rootfstype=squashfs,tmpfs", False),
        ("rootfstype=tmpfs root=/dev/vda", True),
    ],
)
def test_which_initrds_are_measured(line, measured):
    assert is_measured(line) is measured


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_files_or_refused(data, packed):
    try:
        initrd_files(gzip.compress(data) if packed else data)
    except ImageFolderInvalid:
        return


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0 "), min_size=1), st.binary()))
def test_what_was_packed_is_found(files):
    files = {f"d/{name}": content for name, content in files.items()}
    data = b"".join(member(name, content) for name, content in files.items()) + END
    assert initrd_files(data) == {f"/{name}": digest(content) for name, content in files.items()}
