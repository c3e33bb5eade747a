"""`umec demo-vm`: what the machine's programs say, and the whole of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_platform.demo.vm.machine import said

WORK_SECONDS = 1800


def test_an_event_of_the_agent_is_found_on_the_console() -> None:
    line = {"event": "line", "text": '[    9.1] umec-node: {"event": "enrolled", "node": "pole-1"}'}
    assert said(line) == [{"event": "enrolled", "node": "pole-1"}]


@pytest.mark.parametrize(
    "text", ["umec-node: agent: starting", "umec-node: {", '{"event": "enrolled"}', "", "umec-node: []"]
)
def test_other_lines_are_no_events(text: str) -> None:
    assert said({"event": "line", "text": text}) == []


def test_what_is_no_line_of_the_console_is_no_event() -> None:
    assert said({"event": "stage", "text": 'umec-node: {"event": "enrolled"}'}) == []


@given(text=st.text())
def test_any_text_of_a_console(text: str) -> None:
    for event in said({"event": "line", "text": f"umec-node: {{{text}"}):
        assert isinstance(event, dict)


@pytest.mark.vm
def test_every_link_holds_and_the_attack_is_refused(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "umec_platform.cli", "demo-vm", "--json", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=WORK_SECONDS)
    told = [json.loads(text) for text in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(each["link"], each["ok"]) for each in told if "link" in each] == [(n, True) for n in range(1, 7)]
    assert [(each["attack"], each["code"]) for each in told if "attack" in each] == [("foreign-keys", "pcr-unexpected")]
    assert told[-1]["ok"] is True
    assert "umec-node: root" in (tmp_path / "kept" / "node" / "console.log").read_text(errors="replace")
