"""Real boots: two images as they were predicted, and every way to tamper with one. A minute each."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from umec_images.machine import DOCUMENTED
from umec_images.machine.partitions import read_span, spans
from umec_images.nodeimage.keys import load_certificates

pytestmark = pytest.mark.vm

RECIPE = Path(__file__).parents[2] / "images" / "recipes" / "minimal.toml"
WORK_SECONDS = 1800
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
    made, data = (node / "tpm" / "ek-root.pem").read_bytes(), luks_of(node)
    assert data.startswith(b"LUKS\xba\xbe\0\2")
    assert data_of(built[2], node, "--tamper", "keys") == {"event": "data-closed", "code": "approval-pcrs"}
    assert luks_of(node) == data
    assert data_of(built[2], node) == {"event": "data-opened"}
    assert luks_of(node) == data  # and is the same that the first boot made
    assert (node / "tpm" / "ek-root.pem").read_bytes() == made
    assert "umec-node: root" in (node / "console.log").read_text(errors="replace")


def data_of(image: Path, node: Path, *tampering: str) -> dict[str, Any]:
    """Boot, and return what the node says of its data partition: opened, or closed and why."""
    words = ["nodeimage", "boot", str(image), "--keep", str(node), "--on", *tampering, "--json"]
    line = [sys.executable, "-m", "umec_platform.cli", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as machine:
        try:
            assert machine.stdout is not None
            for text in machine.stdout:
                said = str(json.loads(text).get("text", "")).partition("umec-node: ")[2]
                if said.startswith('{"event": "data-'):
                    told = json.loads(said)
                    return {name: told[name] for name in ("event", "code") if name in told}
        finally:
            machine.terminate()
    raise AssertionError("it said nothing of its data partition")


def luks_of(node: Path) -> bytes:
    """The first header of LUKS2, without its checksum and the number of its changes (there are none)."""
    disk = node / "disk.img"
    return read_span(disk, spans(disk)["data"])[1024 * 1024 :][: 16 * 1024]
