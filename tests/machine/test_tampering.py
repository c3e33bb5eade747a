"""What somebody with the open box does: exactly that is changed, and the image itself never."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.testing.pe import authenticode_sha256, make_pe, section_bytes
from umec_images.machine import DOCUMENTED, Attacker, NodeImageFolder, install, tamper
from umec_images.machine.errors import TamperingRefused
from umec_images.machine.esp import read_files
from umec_images.machine.partitions import Span, read_span, spans, write_span
from umec_images.machine.ukichange import append_words, flip_bytes, unsigned
from umec_images.nodeimage.fat import file_system

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
KERNEL = "EFI/BOOT/BOOTX64.EFI"
SECTIONS = {"kernel": ".linux", "cmdline": ".cmdline", "initrd": ".initrd"}


@pytest.fixture
def attacker(tmp_path: Path, older_image: NodeImageFolder) -> Attacker:
    return Attacker(tmp_path / "attacker", NOW, older_image)


@pytest.fixture
def node(tmp_path: Path, image: NodeImageFolder) -> Path:
    install(image, tmp_path / "node")
    write_span(tmp_path / "node" / "disk.img", spans(image.disk)["data"], 0, b"the node's own")
    return tmp_path / "node"


def kernel_of(disk: Path) -> bytes:
    return read_files(read_span(disk, spans(disk)["esp"]))[KERNEL]


def changed_partitions(disk: Path, other: Path) -> set[str]:
    found = spans(disk)
    assert found == spans(other)
    return {name for name, span in found.items() if read_span(disk, span) != read_span(other, span)}


def changed_sections(image: bytes, other: bytes) -> set[str]:
    names = (".osrel", ".cmdline", ".initrd", ".linux")
    return {name for name in names if section_bytes(image, name) != section_bytes(other, name)}


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_part_of_the_kernel_image(node: Path, image: NodeImageFolder, attacker: Attacker, kind: str) -> None:
    tamper(kind, node, attacker)
    assert changed_partitions(node / "disk.img", image.disk) == {"esp", "data"}
    assert (node / "vars.fd").read_bytes() == image.variables.read_bytes()
    before, after = kernel_of(image.disk), kernel_of(node / "disk.img")
    assert changed_sections(before, after) == {SECTIONS[kind]}
    assert authenticode_sha256(before) != authenticode_sha256(after)
    assert before[-1024:] == after[-1024:]  # the signature is the owner's, about something else
    assert not attacker.folder.exists()


def test_what_is_added_to_a_command_line_stands_at_its_end(node: Path, attacker: Attacker) -> None:
    before = section_bytes(kernel_of(node / "disk.img"), ".cmdline")
    tamper("cmdline", node, attacker)
    assert before is not None
    assert section_bytes(kernel_of(node / "disk.img"), ".cmdline") == before + b" umec.tampered=1"


def test_other_files_of_the_partition_stay(node: Path, attacker: Attacker) -> None:
    tamper("kernel", node, attacker)
    disk = node / "disk.img"
    files = read_files(read_span(disk, spans(disk)["esp"]))
    assert set(files) == {KERNEL, "EFI/README.TXT"}
    assert files["EFI/README.TXT"] == b"no kernel"


def test_four_bytes_of_the_root(node: Path, image: NodeImageFolder, attacker: Attacker) -> None:
    tamper("root", node, attacker)
    assert changed_partitions(node / "disk.img", image.disk) == {"root-a", "root-b", "data"}
    for name in ("root-a", "root-b"):
        span = spans(image.disk)[name]
        before, after = read_span(image.disk, span), read_span(node / "disk.img", span)
        differ = [place for place in range(len(before)) if before[place] != after[place]]
        assert differ == [8, 9, 10, 11]


def test_keys_of_the_attacker(node: Path, image: NodeImageFolder, attacker: Attacker, owner_keys: Path) -> None:
    tamper("keys", node, attacker)
    assert changed_partitions(node / "disk.img", image.disk) == {"esp", "data"}
    before, after = kernel_of(image.disk), kernel_of(node / "disk.img")
    assert changed_sections(before, after) == {".cmdline"}
    variables = (node / "vars.fd").read_bytes()
    theirs, ours = (
        [_der(folder / f"{name}.crt") for name in ("PK", "KEK", "db")] for folder in (attacker.folder, owner_keys)
    )
    assert all(certificate in variables for certificate in theirs)
    assert not any(certificate in variables for certificate in ours)
    assert theirs[2] in after
    assert ours[2] not in after
    assert variables.endswith(b"what is behind it")


def test_secure_boot_switched_off(node: Path, image: NodeImageFolder, attacker: Attacker) -> None:
    tamper("firmware-vars", node, attacker)
    assert changed_partitions(node / "disk.img", image.disk) == {"data"}
    before, after = image.variables.read_bytes(), (node / "vars.fd").read_bytes()
    differ = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert differ == [(1, 0)]


def test_secure_boot_that_is_off_cannot_be_switched_off(node: Path, attacker: Attacker) -> None:
    tamper("firmware-vars", node, attacker)
    with pytest.raises(TamperingRefused) as refused:
        tamper("firmware-vars", node, attacker)
    assert refused.value.code == "tampering-refused"


def test_an_older_image_of_the_owner(
    node: Path, image: NodeImageFolder, attacker: Attacker, older_image: NodeImageFolder
) -> None:
    tamper("downgrade", node, attacker)
    assert changed_partitions(node / "disk.img", older_image.disk) == {"data"}
    assert kernel_of(node / "disk.img") != kernel_of(image.disk)
    assert read_span(node / "disk.img", spans(image.disk)["data"]).startswith(b"the node's own")
    assert (node / "vars.fd").read_bytes() == image.variables.read_bytes()


def test_an_older_image_has_to_be_there(node: Path, tmp_path: Path) -> None:
    with pytest.raises(TamperingRefused, match="older image"):
        tamper("downgrade", node, Attacker(tmp_path / "attacker", NOW))


def test_nobody_tampers_in_another_way(node: Path, attacker: Attacker) -> None:
    with pytest.raises(TamperingRefused) as refused:
        tamper("weather", node, attacker)
    assert refused.value.code == "tampering-refused"


@pytest.mark.parametrize("kind", [kind for kind in DOCUMENTED if kind is not None])
def test_the_image_itself_stays(
    node: Path, image_folder: Path, older_image: NodeImageFolder, attacker: Attacker, kind: str
) -> None:
    folders = (image_folder, older_image.disk.parent)
    before = [_digests(folder.iterdir()) for folder in folders]
    disk, variables = (node / "disk.img").read_bytes(), (node / "vars.fd").read_bytes()
    tamper(kind, node, attacker)
    assert [_digests(folder.iterdir()) for folder in folders] == before
    assert ((node / "disk.img").read_bytes(), (node / "vars.fd").read_bytes()) != (disk, variables)
    assert read_span(node / "disk.img", spans(node / "disk.img")["data"]).startswith(b"the node's own")


@pytest.mark.parametrize(("name", "kind"), [("esp", "kernel"), ("root-b", "root")])
def test_a_disk_without_the_partition(node: Path, attacker: Attacker, name: str, kind: str) -> None:
    disk = node / "disk.img"
    table = Span(1024, 4 * 128)
    label, other = (text.encode("utf-16-le").ljust(12, b"\0") for text in (name, "none"))
    write_span(disk, table, 0, read_span(disk, table).replace(label, other))
    with pytest.raises(TamperingRefused):
        tamper(kind, node, attacker)


def test_a_disk_without_a_kernel(node: Path, attacker: Attacker) -> None:
    disk = node / "disk.img"
    span = spans(disk)["esp"]
    for offset, piece in file_system({"EFI/README.TXT": b"no kernel"}, span.size):
        write_span(disk, span, offset, piece)
    with pytest.raises(TamperingRefused, match="no kernel image"):
        tamper("kernel", node, attacker)


def test_a_store_without_the_switch(node: Path, attacker: Attacker) -> None:
    (node / "vars.fd").write_bytes(b"\xff" * 4096)
    with pytest.raises(TamperingRefused, match="not on"):
        tamper("firmware-vars", node, attacker)


UKI = make_pe({".cmdline": b"quiet", ".initrd": b"123", ".linux": b"kernel"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: unsigned(UKI), "no signature"),
        (lambda: flip_bytes(UKI, ".profile"), "no section"),
        (lambda: flip_bytes(UKI, ".initrd"), "3 bytes"),
        (lambda: append_words(UKI, ".cmdline", b"x" * 513), "no room"),
        (lambda: flip_bytes(b"MZ", ".linux"), "ends in its headers"),
        (lambda: flip_bytes(UKI.replace(b"PE\0\0", b"NE\0\0", 1), ".linux"), "no PE image"),
        (lambda: flip_bytes(UKI[:600], ".linux"), "no section"),
        (lambda: unsigned(UKI[: 0x80 + 24 + 100]), "ends in its headers"),
    ],
)
def test_what_cannot_be_changed(change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(TamperingRefused, match=said):
        change()


def test_words_take_the_place_of_the_end_where_the_file_has_no_room() -> None:
    full = make_pe({".cmdline": b"a" * 510})
    assert section_bytes(append_words(full, ".cmdline", b"bcd"), ".cmdline") == b"a" * 509 + b"bcd"


@given(data=st.binary(max_size=400), place=st.integers(0, 700), name=st.sampled_from([".linux", ".cmdline"]))
def test_any_bytes_are_changed_or_no_image(data: bytes, place: int, name: str) -> None:
    image = UKI[:place] + data + UKI[place + len(data) :]
    for change in (lambda: flip_bytes(image, name), lambda: append_words(image, name, b" x"), lambda: unsigned(image)):
        with contextlib.suppress(TamperingRefused):
            change()


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
