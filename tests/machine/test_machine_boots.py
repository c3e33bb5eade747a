"""Real boots: two images as they were predicted, and every way to tamper with one. A minute each."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from umec_images.machine import DOCUMENTED, Machine, install, open_folder
from umec_images.machine.partitions import Span, read_span, spans, write_span
from umec_images.nodeimage.disk import MEBIBYTE
from umec_images.nodeimage.keys import load_certificates

pytestmark = pytest.mark.vm

RECIPE = Path(__file__).parents[2] / "images" / "recipes" / "minimal.toml"
WORK_SECONDS = 1800
TOKEN, DATA = Span(64 * 1024, 32 * 1024), Span(MEBIBYTE, 16 * MEBIBYTE)
EXT4 = (b"\x53\xef", b"\x01\x00\x00\x00")
"""Magic and revision of an ext4, 20 bytes apart: two bytes alone are found in noise as well."""
NULL_CIPHER = (
    b"LUKS\xba\xbe\0\2".ljust(4096, b"\0")
    + b"""{"keyslots": {}, "digests": {}, "config": {}, "tokens": {},
 "segments": {"0": {"type": "crypt", "offset": "1048576", "size": "dynamic", "iv_tweak": "0", "sector_size": 512,
 "encryption": "cipher_null-ecb"}}}"""
)
PREDICTED = ("4", "7", "9", "11", "12")


def umec(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    line = [sys.executable, "-m", "umec_platform.cli", *arguments, "--json"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=WORK_SECONDS)
    printed = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    assert printed, done.stderr
    return done.returncode, printed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two versions of one image, signed by the same keys; the second has an owner, and a site that nobody reaches."""
    folder = tmp_path_factory.mktemp("built")
    images = {}
    for version in (1, 2):
        recipe = folder / f"{version}.toml"
        recipe.write_text(RECIPE.read_text().replace("\nversion = 1\n", f"\nversion = {version}\n"))
        images[version] = folder / f"image-{version}"
        words = ["--out", str(images[version]), "--keys", _keys(folder), *(_owned(folder) if version == 2 else ())]
        status, said = umec("nodeimage", "build", str(recipe), *words)
        assert (status, said[-1].get("version")) == (0, version)
    assert umec("nodeimage", "approve", str(images[2]), "--key", str(folder / "owner" / "owner.key"))[0] == 0
    return images


def _owned(folder: Path) -> list[str]:
    assert umec("nodeimage", "keys", str(folder / "owner"), "--owner")[0] == 0
    ca = folder / "ca.pem"
    ca.write_bytes(load_certificates(Path(_keys(folder))).database.public_bytes(Encoding.PEM))
    return ["--owner", str(folder / "owner/owner.pem"), "--site-url", "https://192.0.2.1:8443", "--site-ca", str(ca)]


def predicted(image: Path) -> dict[str, str]:
    said = umec("nodeimage", "predict", str(image), "--root", str(image / "root.img"))[1]
    return dict(said[-1]["pcrs"]["sha256"])


def _keys(folder: Path) -> str:
    keys = folder / "secure-boot"
    if not keys.exists():
        assert umec("nodeimage", "keys", str(keys))[0] == 0
    return str(keys)


@pytest.mark.parametrize("version", [1, 2])
def test_an_image_boots_as_it_was_predicted(built: dict[int, Path], version: int) -> None:
    status, said = umec("nodeimage", "boot", str(built[version]))
    outcome = said[-1]
    assert (status, outcome["ended_by"], outcome["faults"]) == (0, None, [])
    expected = predicted(built[version])
    assert {number: outcome["pcrs"][number] for number in PREDICTED} == {n: expected[n] for n in PREDICTED}
    stages = [event["stage"] for event in said if event["event"] == "stage"]
    assert stages[:4] == ["firmware", "stub", "kernel", "root"]


def test_two_images_are_told_apart(built: dict[int, Path]) -> None:
    first, second = (predicted(built[n]) for n in (1, 2))
    assert {number for number in PREDICTED if first[number] != second[number]} == {"4", "9", "11"}


@pytest.mark.parametrize("kind", [kind for kind in DOCUMENTED if kind is not None])
def test_tampering_ends_as_documented(built: dict[int, Path], kind: str) -> None:
    older = ["--older", str(built[1])] if kind == "downgrade" else []
    status, said = umec("nodeimage", "boot", str(built[2]), "--tamper", kind, *older)
    outcome = said[-1]
    assert (status, outcome["faults"]) == (0, [])
    end = DOCUMENTED[kind].end
    assert outcome["ended_by"] == (None if end is None else end.value)


def test_a_node_keeps_its_tpm_over_its_boots_and_opens_its_data_in_the_approved_state_alone(
    built: dict[int, Path], tmp_path: Path
) -> None:
    node = tmp_path / "node"
    assert data_of(built[2], node) == {"event": "data-opened"}
    made, token = (node / "tpm" / "ek-root.pem").read_bytes(), data_area(node, TOKEN)
    assert json.loads(token.rstrip(b"\0"))["type"] == "umec-data"
    data = data_area(node, DATA)
    assert EXT4 not in {(data[at : at + 2], data[at + 20 : at + 24]) for at in range(1080, len(data) - 4096, 1024)}
    assert bytes(1024) not in {data[at : at + 1024] for at in range(0, 65536, 1024)}  # ciphertext, of zeros as well
    assert data_of(built[2], node, "--tamper", "keys") == {"event": "data-closed", "code": "approval-pcrs"}
    assert (data_area(node, TOKEN), data_area(node, DATA)) == (token, data)

    other = tmp_path / "other.img"  # which has everything that this disk has, under the same names
    shutil.copyfile(node / "disk.img", other)
    write_span(other, spans(other)["data"], 0, bytes(4 * MEBIBYTE))
    before = hashlib.sha256(other.read_bytes()).digest()
    assert data_of(built[2], node, plugged_in=other) == {"event": "data-opened"}
    assert hashlib.sha256(other.read_bytes()).digest() == before
    assert data_area(node, TOKEN) == token  # and is the same that the first boot made
    assert (node / "tpm" / "ek-root.pem").read_bytes() == made
    assert "umec-node: root" in (node / "console.log").read_text(errors="replace")

    disk = node / "disk.img"  # to somebody who wants it written in clear, what the disk says is all that there is
    write_span(disk, spans(disk)["data"], TOKEN.start, bytes(TOKEN.size))
    write_span(disk, spans(disk)["data"], DATA.start, NULL_CIPHER)
    before = data_area(node, Span(0, 8 * MEBIBYTE))
    assert data_of(built[2], node) == {"event": "data-closed", "code": "data-not-blank"}
    assert data_area(node, Span(0, 8 * MEBIBYTE)) == before


def data_of(image: Path, node: Path, *tampering: str, plugged_in: Path | None = None) -> dict[str, Any]:
    """Boot, and return what the node says of its data partition: opened, or closed and why."""
    if plugged_in is not None:
        install(open_folder(image), node)
        with Machine(node, open_folder(image).firmware, plugged_in=plugged_in) as machine:
            return data_told(line.text for line in machine.lines(seconds=WORK_SECONDS))
    words = ["nodeimage", "boot", str(image), "--keep", str(node), "--on", *tampering, "--json"]
    line = [sys.executable, "-m", "umec_platform.cli", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as machine:
        try:
            assert machine.stdout is not None
            return data_told(str(json.loads(text).get("text", "")) for text in machine.stdout)
        finally:
            machine.terminate()


def data_told(lines: Iterable[str]) -> dict[str, Any]:
    """What a console says of the data partition."""
    for line in lines:
        said = line.partition("umec-node: ")[2]
        if said.startswith('{"event": "data-'):
            told = json.loads(said)
            return {name: told[name] for name in ("event", "code") if name in told}
    raise AssertionError("it said nothing of its data partition")


def data_area(node: Path, area: Span) -> bytes:
    """What is written in a part of the data partition."""
    disk = node / "disk.img"
    return read_span(disk, spans(disk)["data"])[area.start : area.start + area.size]
