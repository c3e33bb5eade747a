"""Images: every digest is checked, and no layer leaves its root. As root, without a container."""

import json
import stat
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umec_core.errors import UmecError
from umec_platform.netd.errors import ImageInvalid
from umec_platform.netd.image import open_layer, read_image
from umec_platform.netd.unpack import unpack_layer

DIRECTORY, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
CHARACTER, PIPE = tarfile.CHRTYPE, tarfile.FIFOTYPE


def unpack(folder, image):
    root = Path(folder) / "root"
    root.mkdir()
    for layer in read_image(image.folder, image.digest).layers:
        with open_layer(image.folder, layer) as tar:
            unpack_layer(tar, root, owners=True)
    return root


def code_of(action, *args):
    with pytest.raises(UmecError) as refused:
        action(*args)
    return refused.value.code


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_one_changed_octet(tmp_path, tools, which, compress):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("file", b"content"))], compress=compress)
    path = image.path({"manifest": image.digest, "config": image.config, "layer": image.layers[0]}[which])
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert code_of(unpack, tmp_path, image) == "layer-digest"
    (tmp_path / "root").rmdir() if (tmp_path / "root").exists() else None
    path.write_bytes(good)
    assert (unpack(tmp_path, image) / "file").read_bytes() == b"content"


def test_missing_longer_and_linked_files(tmp_path, tools):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("file", b"content"))])
    path = image.path(image.layers[0])
    good = path.read_bytes()
    path.unlink()
    layer = read_image(image.folder, image.digest).layers[0]
    assert code_of(open_layer, image.folder, layer) == "layer-digest"
    (tmp_path / "elsewhere").write_bytes(good)
    path.symlink_to(tmp_path / "elsewhere")
    assert code_of(open_layer, image.folder, layer) == "layer-digest"
    path.unlink()
    path.write_bytes(good + b"\x00" * 1024)
    assert code_of(open_layer, image.folder, layer) == "layer-digest"


def test_layer_that_the_configuration_does_not_name(tmp_path, tools):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("file", b"content"))])
    config = json.loads(image.path(image.config).read_bytes())
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    manifest = {**image.manifest, "config": {"digest": image.put(json.dumps(config).encode())}}
    digest = image.put(json.dumps(manifest).encode())
    layer = read_image(image.folder, digest).layers[0]
    assert code_of(open_layer, image.folder, layer) == "layer-digest"


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.oci.image.index.v1+json"},
        {"layers": []},
        {"layers": None},
        {"layers": [{}]},
        {"config": {"digest": "sha256:../../etc/passwd"}},
    ],
)
def test_manifests_that_are_not_of_one_image(tmp_path, tools, change):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("file", b"content"))])
    digest = image.put(json.dumps({**image.manifest, **change}).encode())
    assert code_of(read_image, image.folder, digest) == "image-invalid"


@pytest.mark.parametrize(
    "config", [{"User": "www-data"}, {"User": "99999"}, {"Env": ["A"]}, {"Cmd": [1]}, {"WorkingDir": "x"}]
)
def test_configurations_that_are_refused(tmp_path, tools, config):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("file", b"content"))], config=config)
    assert code_of(read_image, image.folder, image.digest) == "image-invalid"


@pytest.mark.parametrize(
    "entries",
    [
        [("../escaped", b"x")],
        [("a/../../escaped", b"x")],
        [("/escaped", b"x")],
        [("device", {"type": CHARACTER, "devmajor": 1, "devminor": 3})],
        [("pipe", {"type": PIPE})],
        [("hard", {"type": HARD, "linkname": "../escaped"})],
        [("hard", {"type": HARD, "linkname": "/etc/passwd"})],
        [("here", {"type": LINK, "linkname": "/etc"}), ("hard", {"type": HARD, "linkname": "here/passwd"})],
        [("file", b"x"), ("file/below", b"y")],
        [("loop", {"type": LINK, "linkname": "loop"}), ("loop/file", b"x")],
        [(".wh.", b"")],
        [("d/.wh...", b"")],
    ],
)
def test_layers_that_are_refused(tmp_path, tools, entries):
    image = tools.Image(tmp_path / "blobs", [tools.tar_of(("d", {"type": DIRECTORY}), *entries)])
    assert code_of(unpack, tmp_path, image) == "image-invalid"
    assert not (tmp_path / "escaped").exists()


def test_links_lead_within_the_root_only(tmp_path, tools):
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = tools.tar_of(
        ("usr/lib", {"type": DIRECTORY, "mode": 0o755}),
        ("lib", {"type": LINK, "linkname": "/usr/lib"}),
        ("up", {"type": LINK, "linkname": "../../../../../../.."}),
        ("out", {"type": LINK, "linkname": str(outside)}),
        (str(outside)[1:], {"type": DIRECTORY, "mode": 0o755}),
        ("lib/library", b"1"),
        ("up/at-root", b"2"),
        ("out/file", b"3"),
        ("suid", b"4"),
    )
    root = unpack(tmp_path, tools.Image(tmp_path / "blobs", [layer]))
    assert (root / "usr/lib/library").read_bytes() == b"1"
    assert (root / "at-root").read_bytes() == b"2"
    assert (root / str(outside)[1:] / "file").read_bytes() == b"3"
    assert list(outside.iterdir()) == []


def test_whiteouts_and_replacements(tmp_path, tools):
    names = ("keep", "gone", "dir/old", "dir/sub/old", "tree/a/b", "was-dir/x")
    first = tools.tar_of(*((name, b"1") for name in names))
    # The new file stands before the opaque mark: it stays nevertheless.
    second = tools.tar_of(
        ("dir/new", b"2"), (".wh.gone", b""), ("dir/.wh..wh..opq", b""), (".wh.tree", b""), (".wh.never-was", b""),
        ("was-dir", b"now a file"),
    )  # fmt: skip
    root = unpack(tmp_path, tools.Image(tmp_path / "blobs", [first, second]))
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["dir", "dir/new", "keep", "was-dir"]


def test_whiteout_does_not_follow_links(tmp_path, tools):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"x")
    first = tools.tar_of(("link", {"type": LINK, "linkname": str(victim)}))
    second = tools.tar_of(("link/.wh.file", b""), ("link/.wh..wh..opq", b""), (".wh.link", b""))
    unpack(tmp_path, tools.Image(tmp_path / "blobs", [first, second]))
    assert (victim / "file").read_bytes() == b"x"


def test_no_set_uid_and_owners_of_the_image(tmp_path, tools):
    layer = tools.tar_of(("d", {"type": DIRECTORY, "mode": 0o7777, "uid": 1000, "gid": 1001}))
    root = unpack(tmp_path, tools.Image(tmp_path / "blobs", [layer]))
    found = (root / "d").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o777, 1000, 1001)
    big = tools.tar_of(("d", {"type": DIRECTORY, "uid": 2**20}))
    (tmp_path / "second").mkdir()
    assert code_of(unpack, tmp_path / "second", tools.Image(tmp_path / "blobs", [big])) == "image-invalid"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=2048), st.integers(0, 511), st.integers(0, 255))
def test_any_octets_unpack_or_give_the_one_error(noise, place, value):
    head = bytearray(tarfile.TarInfo("name").tobuf())
    head[place] = value
    for data in (noise, bytes(head) + noise):
        with tempfile.TemporaryDirectory() as root:
            try:
                unpack_layer(BytesIO(data), Path(root), owners=False)
            except ImageInvalid:
                continue
