"""Programs of an image are read and never run where it is built, and links of packages lead nowhere out of it."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.nodeimage import elf
from umec_images.nodeimage.content import place_applets
from umec_images.nodeimage.elf import applets, needed
from umec_images.nodeimage.errors import ContentRefused
from umec_images.nodeimage.initrd import _libraries
from umec_images.nodeimage.kernel import find_kernel
from umec_images.nodeimage.python import compile_tree
from umec_images.nodeimage.tree import MAX_LINKS, check_plain, prepare, read_file

BUSYBOX = Path("/bin/busybox")
PYTHON = Path(sys.executable).resolve()
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")


def test_busybox_is_read_as_it_would_answer():
    said = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert applets(BUSYBOX.read_bytes()) == said


def test_the_libraries_of_a_program_are_those_that_its_loader_takes(tmp_path):
    prepare(tmp_path)
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir()
    shutil.copyfile(PYTHON, tmp_path / "usr/sbin/dmsetup")
    for library in LIBRARIES.glob("lib[cmz]*.so.*"):
        shutil.copyfile(library, tmp_path / "usr/lib/x86_64-linux-gnu" / library.name)
    shutil.copyfile(LIBRARIES / "libexpat.so.1", tmp_path / "usr/lib/x86_64-linux-gnu/libexpat.so.1")
    said = subprocess.run(["ldd", PYTHON], check=True, capture_output=True, text=True).stdout.splitlines()
    assert list(_libraries(tmp_path)) == sorted(line.split()[0] for line in said if "=>" in line)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libexpat.so.1").unlink()
    with pytest.raises(ContentRefused, match="libexpat") as refused:
        _libraries(tmp_path)
    assert refused.value.code == "image-content-refused"


def test_no_program_of_the_tree_is_started(tmp_path):
    prepare(tmp_path)
    trap = f"#!/bin/sh\ntouch {tmp_path}/sprung\n".encode()
    for name in ("usr/bin/busybox", "usr/sbin/dmsetup", "usr/lib64/ld-linux-x86-64.so.2"):
        (tmp_path / name).write_bytes(trap)
        (tmp_path / name).chmod(0o755)
    for attempt in (place_applets, _libraries):
        with pytest.raises(ContentRefused) as refused:
            attempt(tmp_path)
        assert refused.value.code == "image-content-refused"
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "usr/bin/busybox").write_bytes(BUSYBOX.read_bytes())
    place_applets(tmp_path)
    assert (tmp_path / "usr/bin/ls").readlink() == Path("busybox")


def test_a_program_that_asks_for_no_libraries_but_for_paths_or_too_many_is_refused(monkeypatch):
    program = PYTHON.read_bytes()
    found = needed(program)
    assert "libc.so.6" in found
    with pytest.raises(ContentRefused, match="nothing is called") as refused:
        needed(program.replace(b"\0libc.so.6\0", b"\0../../etc\0"))
    assert refused.value.code == "image-content-refused"
    monkeypatch.setattr(elf, "MAX_NEEDED", len(found) - 1)
    with pytest.raises(ContentRefused, match="nothing is called"):
        needed(program)
    monkeypatch.setattr(elf, "MAX_NEEDED", len(found))
    assert needed(program) == found


HEAD = PYTHON.read_bytes()[:4096]


@given(data=st.binary(max_size=300), place=st.integers(0, 600))
def test_any_bytes_are_a_program_or_refused(data, place):
    for content in (data, HEAD[:place] + data + HEAD[place + len(data) :]):
        with contextlib.suppress(ContentRefused):
            assert all(isinstance(name, str) for name in needed(content))
        with contextlib.suppress(ContentRefused):
            assert applets(content)[:2] == ["[", "[["]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    prepare(root)
    (tmp_path / "secret").write_bytes(b"of the machine that builds")
    (root / "usr/bin/tool").write_bytes(b"of the image")
    (root / "etc/secret").write_bytes(b"the image's own")
    return root


@pytest.mark.parametrize(
    "target", ["../../../etc/secret", "/etc/secret", "/bin/../../etc/secret", "../../../../../../../etc/secret"]
)
def test_links_lead_within_the_image(tree, target):
    (tree / "usr/bin/link").symlink_to(target)
    (tree / "usr/bin/again").symlink_to("link")
    assert read_file(tree, "usr/bin/again") == b"the image's own"
    assert read_file(tree, "/bin/tool") == b"of the image"


def test_links_without_an_end_and_to_nothing_are_refused(tree):
    (tree / "usr/bin/a").symlink_to("b")
    (tree / "usr/bin/b").symlink_to("a")
    (tree / "usr/bin/0").symlink_to("tool")
    for number in range(MAX_LINKS):
        (tree / f"usr/bin/{number + 1}").symlink_to(f"{number}")
    for path in ("usr/bin/a", f"usr/bin/{MAX_LINKS}", "usr/bin", "usr/bin/none", str(tree.parent / "secret")):
        with pytest.raises(ContentRefused) as refused:
            read_file(tree, path)
        assert refused.value.code == "image-content-refused"
    assert read_file(tree, f"usr/bin/{MAX_LINKS - 1}") == b"of the image"


def test_a_kernel_whose_modules_are_those_of_the_machine_that_builds_is_refused(tree, tmp_path):
    outside = tmp_path / "modules"
    outside.mkdir()
    (outside / "modules.builtin").write_text("")
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz-6.1").write_bytes(b"kernel")
    (tree / "usr/lib/modules").mkdir()
    (tree / "usr/lib/modules/6.1").symlink_to(outside)
    with pytest.raises(ContentRefused) as refused:
        find_kernel(tree)
    assert refused.value.code == "image-content-refused"
    (tree / "usr/lib/modules/6.1").unlink()
    outside.rename(tree / "usr/lib/modules/6.1")
    assert find_kernel(tree).release == "6.1"
    (tree / "boot/vmlinuz-6.1").unlink()
    (tree / "boot/vmlinuz-6.1").symlink_to(tmp_path / "secret")
    with pytest.raises(ContentRefused, match="vmlinuz"):
        find_kernel(tree)


def test_a_folder_that_has_to_be_plain_is_one(tree):
    (tree / "usr/share/x/y").mkdir(parents=True)
    check_plain(tree, "usr/share/x")
    (tree / "usr/share/x/y/z").symlink_to("/")
    for folder in ("usr/share/x", "bin", "usr/share/none", "bin/x"):
        with pytest.raises(ContentRefused):
            check_plain(tree, folder)


def test_no_module_of_this_machine_is_compiled_and_nothing_is_written_there(tree, tmp_path):
    place = tree / f"usr/lib/python3.{sys.version_info.minor}"
    outside = tmp_path / "outside"
    for folder in (place, outside):
        folder.mkdir()
    (outside / "own.py").write_text("x = 1\n")
    (place / "link.py").symlink_to(outside / "own.py")
    (place / "good.py").write_text("x = 2\n")
    compile_tree(tree)
    assert [path.name.partition(".")[0] for path in (place / "__pycache__").iterdir()] == ["good"]
    shutil.rmtree(place / "__pycache__")
    (place / "__pycache__").symlink_to(outside)
    with pytest.raises(ContentRefused, match="__pycache__") as refused:
        compile_tree(tree)
    assert refused.value.code == "image-content-refused"
    assert [path.name for path in outside.iterdir()] == ["own.py"]
