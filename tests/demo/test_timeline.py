"""The demo's own honesty: whatever does not hold makes the run fail, and is named."""

import hashlib
import json
import re

import pytest

from umec_platform.demo.timeline import Broken, Timeline


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_run_in_which_everything_held_succeeds(capsys):
    timeline = Timeline(as_json=True, kinds={"replayed-evidence": "evidence"})
    with timeline.link(4, "attested") as evidence:
        evidence.data = b"quote"
    timeline.attack("replayed-evidence", expected="evidence-replayed", code="evidence-replayed")
    timeline.effect("its packets go nowhere", ok=True, ms=12.3)
    assert timeline.finish() == 0
    link, attack, effect, end = lines(capsys)
    assert link["link"] == 4
    assert link["ok"] is True
    assert link["evidence"] == "sha256:" + hashlib.sha256(b"quote").hexdigest()
    assert attack == {"attack": "replayed-evidence", "refused": True, "code": "evidence-replayed"}
    assert effect["ms"] == 12
    assert end.pop("seconds") >= 0
    assert end == {"ok": True, "broken": [], "attacks": {"evidence": {"refused": 1, "of": 1}}}


def test_a_link_that_breaks_ends_the_run_and_is_named(capsys):
    timeline = Timeline(as_json=True)
    with pytest.raises(Broken), timeline.link(2, "booted"):
        raise Broken("the log does not replay", "bootlog-replay-mismatch")
    assert timeline.finish() == 1
    link, end = lines(capsys)
    assert link["ok"] is False
    assert link["code"] == "bootlog-replay-mismatch"
    assert end["broken"] == ["link 2 (measured boot): booted"]


@pytest.mark.parametrize("code", [None, "another-code"])
def test_an_attack_that_is_not_refused_for_its_own_reason_fails_the_run(capsys, code):
    timeline = Timeline(as_json=True)
    timeline.attack("replayed-evidence", expected="evidence-replayed", code=code)
    timeline.attack("older-reference-set", expected="reference-rollback", code="reference-rollback")
    assert timeline.finish() == 1
    attack, _, end = lines(capsys)
    assert attack["refused"] is False
    assert end["attacks"] == {"other": {"refused": 1, "of": 2}}


def test_a_reader_is_told_how_many_attacks_of_each_kind_were_refused_and_how_long_it_took(capsys):
    timeline = Timeline(as_json=False, kinds={"replayed-evidence": "evidence"})
    timeline.attack("replayed-evidence", expected="evidence-replayed", code="evidence-replayed")
    assert timeline.finish() == 0
    told = capsys.readouterr().out
    assert re.search(r"evidence\s+│ 1 / 1", told)
    assert re.search(r"[0-9.]+ s\n", told)


def test_an_effect_that_does_not_arrive_fails_the_run(capsys):
    timeline = Timeline(as_json=True)
    timeline.effect("its name is gone", ok=False, ms=None)
    assert timeline.finish() == 1
    assert lines(capsys)[-1]["ok"] is False
