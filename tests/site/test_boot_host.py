"""A node image with a host that really boots: an application answers there, and its start is judged."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.vm

UMEC = [sys.executable, "-m", "umec_platform.cli"]
BUILD_SECONDS = 900


def build(told):
    """Build the image that the script asks for, here, where packages can be fetched."""
    line = [*UMEC, "nodeimage", "build", *told["build"], "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return "built\n"


def test_an_application_runs_on_a_node_that_booted_and_its_start_is_judged(in_sandbox):
    seen = in_sandbox("boot_host.py", meanwhile=build, seconds=1800)[-1]
    assert (seen["state"], seen["services"]) == ("STARTED", ["ACTIVE"])
    assert (seen["own"], seen["name"]) == (True, True), "its rule leads to it, and its name to the rule"
    assert "answering on" in seen["log"]
    before, after = seen["before"], seen["after"]
    assert (before["standing"], before["judged"]["entries"]) == ("trusted", 0)
    assert (after["standing"], after["judged"]["entries"], after["judged"]["findings"]) == ("trusted", 1, [])
    assert after["judged"]["pcr"] != "00" * 32
    assert seen["findings"] == []
    assert seen["suspended"] == ["SUSPENDED"]
