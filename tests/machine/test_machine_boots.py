"""Real boots: two images as they were predicted, and every way to tamper with one. A minute each."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umec_images.machine import DOCUMENTED

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
    """Two versions of one image, signed by the same keys."""
    folder = tmp_path_factory.mktemp("built")
    images = {}
    for version in (1, 2):
        recipe = folder / f"{version}.toml"
        recipe.write_text(RECIPE.read_text().replace("\nversion = 1\n", f"\nversion = {version}\n"))
        images[version] = folder / f"image-{version}"
        status, said = umec("nodeimage", "build", str(recipe), "--out", str(images[version]), "--keys", _keys(folder))
        assert (status, said[-1].get("version")) == (0, version)
    return images


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
    predicted = umec("nodeimage", "predict", str(built[version]))[1][-1]["pcrs"]["sha256"]
    assert {number: outcome["pcrs"][number] for number in PREDICTED} == {n: predicted[n] for n in PREDICTED}
    stages = [event["stage"] for event in said if event["event"] == "stage"]
    assert stages[:4] == ["firmware", "stub", "kernel", "root"]


def test_two_images_are_told_apart(built: dict[int, Path]) -> None:
    first, second = (umec("nodeimage", "predict", str(built[n]))[1][-1]["pcrs"]["sha256"] for n in (1, 2))
    assert {number for number in PREDICTED if first[number] != second[number]} == {"4", "9", "11"}


@pytest.mark.parametrize("kind", [kind for kind in DOCUMENTED if kind is not None])
def test_tampering_ends_as_documented(built: dict[int, Path], kind: str) -> None:
    older = ["--older", str(built[1])] if kind == "downgrade" else []
    status, said = umec("nodeimage", "boot", str(built[2]), "--tamper", kind, *older)
    outcome = said[-1]
    assert (status, outcome["faults"]) == (0, [])
    end = DOCUMENTED[kind].end
    assert outcome["ended_by"] == (None if end is None else end.value)


def test_a_node_keeps_its_tpm_over_its_boots(built: dict[int, Path], tmp_path: Path) -> None:
    node = tmp_path / "node"
    assert umec("nodeimage", "boot", str(built[2]), "--tamper", "kernel", "--keep", str(node))[0] == 0
    made = (node / "tpm" / "ek-root.pem").read_bytes()
    status, said = umec("nodeimage", "boot", str(built[2]), "--keep", str(node))
    assert (status, said[-1]["stage"]) == (0, "root")
    assert (node / "tpm" / "ek-root.pem").read_bytes() == made
    assert "umec-node: root" in (node / "console.log").read_text(errors="replace")
