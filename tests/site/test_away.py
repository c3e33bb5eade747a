"""Something was away: an operator's trust in a node, its power, the verifier, the feed. It comes back by itself."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from umec_platform.demo.sandbox import INSIDE

pytestmark = pytest.mark.system

ALARMS = {
    "quarantine and readmission": {"node-a quarantined, node-a pending, node-a trusted"},
    "power cut in mid-round": {"no standing changed", "node-a lapsed, node-a trusted"},
    "site stopped, verifier and all": {"no standing changed"},
    "feed cut off": {"no standing changed"},
    "site killed, verifier and all": {"no standing changed"},
}
"""Each story, and which standings may change in it."""


@pytest.fixture(scope="module")
def effects():
    """What was seen, by its name."""
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    line = [*unshare, "--", sys.executable, str(Path(__file__).with_name("away.py"))]
    with tempfile.TemporaryDirectory(prefix="umec-away-") as folder:
        environment = {**os.environ, INSIDE: folder, "TMPDIR": folder, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.stdout, done.stderr
    lines = [json.loads(each) for each in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1], done.stderr)
    return {each["effect"]: each for each in lines if "effect" in each}


def test_every_effect_arrives(effects):
    assert len(effects) == 23
    assert all(each["ok"] for each in effects.values())


@pytest.mark.parametrize("story", ALARMS)
def test_no_standing_changes_that_nobody_provoked(effects, story):
    told = effects[f"{story}: false alarms: 0"]
    assert told["detail"] in ALARMS[story]


def test_who_cannot_know_what_a_node_is_worth_refuses(effects):
    assert effects["feed cut off: calls in a node's name are refused"]["detail"] == "standing-stale"
    assert effects["so is the node itself, with its certificate"]["detail"] == "standing-stale"
