"""`umec demo-vm`: what the machine's programs say, and the whole of it."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.machine import DOCUMENTED
from umec_platform.demo.timeline import Timeline
from umec_platform.demo.vm import box
from umec_platform.demo.vm.box import KINDS
from umec_platform.demo.vm.machine import said

WORK_SECONDS = 1800
REFUSED = {"kernel": "signature", "keys": "pcr-unexpected"}
"""One that does not boot, and one that is judged; `tests/machine` boots all, `demo-vm --tamper all` shows them."""


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


def test_every_kind_of_tampering_can_be_shown_and_no_other() -> None:
    assert set(KINDS) == {kind for kind in DOCUMENTED if kind is not None}
    for kind, opened in KINDS.items():
        end = DOCUMENTED[kind].end
        assert bool(opened.stages) == (end is None)
        assert end is None or opened.refused == end.value
    line = [sys.executable, "-m", "umec_platform.cli", "demo-vm", "--json", "--tamper", "weather"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, "attack-unknown")


class Street:
    """A run whose site says one thing after the other of the node, and in the end the last for ever."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self.timeline = Timeline(as_json=True)
        self.said = list(said)

    def operator(self, *_command: str) -> dict[str, Any]:
        return {"reason": "", **(self.said.pop(0) if len(self.said) > 1 else self.said[0])}


@pytest.mark.parametrize("later", [{"standing": "trusted", "rounds": 4}, {"standing": "untrusted", "rounds": 4}])
def test_a_box_that_was_silent_and_then_is_heard_of_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, later: dict[str, Any]
) -> None:
    """The node has lapsed before: the box that was opened before this one left it silent, too."""
    monkeypatch.setattr(box, "LOOK_EVERY", 0.0)
    outcome, silent = {"ended_by": "verity", "said": ""}, {"standing": "lapsed", "rounds": 3}
    heard = Street(silent, silent, later)
    box._silent(heard, "root", outcome, silent, until=math.inf)
    assert heard.timeline.broken == [f"effect pole-1 is {later['standing']}: "]
    quiet = Street(silent)
    box._silent(quiet, "root", outcome, silent, until=0.0)
    assert quiet.timeline.broken == []


@pytest.mark.vm
def test_every_link_holds_and_no_tampering_is_trusted(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "umec_platform.cli", "demo-vm", "--json", "--keep", str(tmp_path / "kept")]
    line += [word for kind in REFUSED for word in ("--tamper", kind)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=WORK_SECONDS)
    told = [json.loads(text) for text in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(each["link"], each["ok"]) for each in told if "link" in each] == [(n, True) for n in range(1, 7)]
    assert [(each["attack"], each["code"]) for each in told if "attack" in each] == list(REFUSED.items())
    standings = [each["effect"] for each in told if each.get("effect", "").startswith("pole-1 is ")]
    assert standings == ["pole-1 is lapsed", "pole-1 is untrusted"]
    assert told[-1]["ok"] is True
    assert "umec-node: root" in (tmp_path / "kept" / "node" / "console.log").read_text(errors="replace")
