"""Real boots of updated disks: a trial is measured as the image was predicted, and what a cut leaves starts."""

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umec_attest.testing.swtpm import SoftwareTpm
from umec_images.machine import Machine, NodeImageFolder, Progress, Stage, install, open_folder
from umec_images.update import Phase, Plan, carry_out, plan, survey, verify_image

pytestmark = pytest.mark.vm

RECIPE = Path(__file__).parents[2] / "images" / "recipes" / "minimal.toml"
WORK_SECONDS = 1800
BOOT_SECONDS = 300
PREDICTED = (4, 7, 9, 11, 12)


def umec(*arguments: object) -> dict[str, Any]:
    line = [sys.executable, "-m", "umec_platform.cli", *map(str, arguments), "--json"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=WORK_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two versions of one image, signed by the same keys."""
    folder = tmp_path_factory.mktemp("built")
    umec("nodeimage", "keys", folder / "keys")
    for version in (1, 2):
        recipe = folder / f"{version}.toml"
        recipe.write_text(RECIPE.read_text().replace("\nversion = 1\n", f"\nversion = {version}\n"))
        umec("nodeimage", "build", recipe, "--out", folder / f"image-{version}", "--keys", folder / "keys")
    return {version: folder / f"image-{version}" for version in (1, 2)}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def boot(node: Path, image: NodeImageFolder) -> dict[int, str]:
    """Start it until its root file system runs, and cut its power; return what it measured."""
    progress = Progress()
    with Machine(node, image.firmware) as machine:
        for line in machine.lines(seconds=BOOT_SECONDS):
            progress.line(line.text)
            if progress.end is not None or (progress.stage.place >= Stage.ROOT.place and progress.measured):
                break
        machine.cut()
    assert progress.end is None, progress.said
    return {number: progress.pcrs[number].hex() for number in PREDICTED}


def predicted(folder: Path) -> dict[int, str]:
    values = umec("nodeimage", "predict", folder)["pcrs"]["sha256"]
    return {number: values[str(number)] for number in PREDICTED}


def test_a_trial_after_a_cut_is_measured_as_predicted_and_the_next_start_is_the_old_image(built, kept_node, tmp_path):
    folder, image = tmp_path / "node", open_folder(built[1])
    install(image, folder)
    with SoftwareTpm(folder / "tpm"):
        pass
    new = verify_image(built[2], digest(built[2]))

    cut(kept_node(folder / "disk.img"), lambda disk: plan(disk, new, None), 9)
    update = ("nodeimage", "update", folder / "disk.img", built[2], "--manifest", digest(built[2]))
    assert umec(*update, "--variables", folder / "vars.fd")["phase"] == "trial"
    assert boot(folder, image) == predicted(built[2])

    command_line = tmp_path / "cmdline"
    command_line.write_text(json.loads((built[1] / "manifest.json").read_text())["command_line"])
    settled = umec("nodeimage", "update-settle", folder / "disk.img", "--running", command_line)
    assert (settled["outcome"], settled["confirmed"]["version"]) == ("fell-back", 1)
    cut(kept_node(folder / "disk.img"), lambda disk: Plan(survey(disk), new, Phase.WRITING), 11)
    assert boot(folder, image) == predicted(built[1])


def cut(node: Any, planning: Any, operations: int) -> None:
    """Let the power go in the middle of an update, and leave some of what was written last."""
    planned = planning(node)
    node.operations, node.cut_after = 0, operations
    with contextlib.suppress(node.power_cut):
        carry_out(planned, node.firmware)
        pytest.fail("the update was over before")
    node.lose(node.chance(operations))
    assert survey(node).confirmed.version == 1
