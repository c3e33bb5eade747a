"""The commands of an update, on the files of a machine that is off."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from umec_platform.cli.nodeimage import app


@pytest.fixture
def disk(first_disk, tmp_path):
    return shutil.copyfile(first_disk, tmp_path / "disk.img")


@pytest.fixture
def variables(variables_file, tmp_path):
    return shutil.copyfile(variables_file, tmp_path / "vars.fd")


def run(*words, status=0):
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def test_a_whole_update(disk, variables, images, tmp_path):
    new = images[2]
    update = ("update", disk, new.folder, "--manifest", f"sha256:{new.digest}", "--variables", variables)
    before = disk.read_bytes(), variables.read_bytes()
    tried = run(*update, "--dry-run")
    assert (tried["from"], tried["to"], tried["slot"], tried["written"]) == (1, 2, "root-b", True)
    assert (disk.read_bytes(), variables.read_bytes()) == before
    assert run(*update)["phase"] == "trial"
    assert variables.read_bytes() != before[1]
    status = run("update-status", disk)
    assert status["confirmed"] == {"version": 1, "slot": "root-a"}
    assert status["other"] == {"version": 2, "slot": "root-b"}
    assert status["update"] == {"version": 2, "manifest": f"sha256:{new.digest}"}
    running = tmp_path / "cmdline"
    running.write_text(new.command_line)
    assert run("update-settle", disk, "--running", running)["outcome"] == "on-trial"
    assert run("update-confirm", disk, "--running", running)["confirmed"] == {"version": 2, "slot": "root-b"}
    assert run("update-status", disk)["phase"] == "none"


def test_an_update_that_falls_back_is_told_and_not_repeated(disk, variables, images, tmp_path):
    new = images[2]
    update = ("update", disk, new.folder, "--manifest", new.digest, "--variables", variables)
    run(*update)
    running = tmp_path / "cmdline"
    running.write_text(images[1].command_line)
    assert run("update-settle", disk, "--running", running)["outcome"] == "fell-back"
    assert run("update-confirm", disk, "--running", running, status=1)["code"] == "update-nothing-on-trial"
    assert run(*update, "--running", running, status=1)["code"] == "update-image-failed"
    assert run(*update, "--again")["phase"] == "trial"


def test_an_older_image_is_refused(disk, images, tmp_path):
    running = tmp_path / "cmdline"
    running.write_text(images[2].command_line)
    run("update", disk, images[2].folder, "--manifest", images[2].digest)
    run("update-confirm", disk, "--running", running)
    for version in (1, 2):
        update = ("update", disk, images[version].folder, "--manifest", images[version].digest)
        assert run(*update, status=1)["code"] == "update-image-older"
    assert run("update", disk, images[3].folder, "--manifest", images[3].digest)["phase"] == "staged"


def test_an_image_with_another_digest_is_refused(disk, images):
    update = ("update", disk, images[2].folder, "--manifest", images[3].digest)
    assert run(*update, status=1)["code"] == "update-manifest-other"


def test_people_are_told_what_happens(disk, variables, images):
    def said(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0
        return done.stdout.strip()

    update = ("update", disk, images[2].folder, "--manifest", images[2].digest)
    assert said(*update, "--dry-run").endswith("allowed, and it fits; nothing was written")
    assert said(*update) == (
        "street-node: version 1 to 2, in the slot root-b: staged; "
        "the firmware has not been asked to try it (--variables)"
    )
    assert said(*update, "--variables", variables).endswith("the next start is its trial")
    assert said("update-status", disk).splitlines() == [
        "street-node version 1 starts, from root-a",
        "version 2 is in root-b",
        "update to version 2: trial",
    ]
