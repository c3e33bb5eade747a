"""A node that really boots takes its next image by itself: told at the site, fetched, tried, trusted, confirmed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from umec_platform.demo.sandbox import INSIDE
from umec_platform.demo.vm.image import fetch

pytestmark = pytest.mark.vm

STORY = Path(__file__).with_name("guest_story.py")
SECONDS = 3600


def test_a_node_updates_itself_and_does_not_go_back():
    lock = fetch()
    line = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    line += [sys.executable, str(STORY), str(lock)]
    with tempfile.TemporaryDirectory(prefix="umec-") as folder:  # the path of a socket has at most 107 bytes
        environment = os.environ | {INSIDE: folder, "TMPDIR": folder, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment, timeout=SECONDS)
    told = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    said = {each["event"]: each for each in told if "event" in each}
    confirmed, refused = said["confirmed"]["report"], said["refused"]["report"]
    assert (confirmed["running"], confirmed["confirmed"], confirmed["phase"]) == (2, 2, "none")
    assert (refused["code"], refused["running"], refused["version"]) == ("update-image-older", 2, 1)
