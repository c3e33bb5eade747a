"""The whole chain, as `make demo` shows it: the README's claims about it, checked line by line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECURITY = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
TOLD = re.findall(r"^\| ([a-z0-9-]+) \| `([a-z0-9-]+)` \| ([0-9.]+) \|$", SECURITY, re.MULTILINE)
"""Attack, code and claim, as the page says them."""
ATTACKS = {name: code for name, code, _ in TOLD}
CLAIMS = set(re.findall(r"^\| ([0-9]+\.[0-9]+) \| [^|]+ \| [a-zA-Z -]+ \| `", SECURITY, re.MULTILINE))
FALL_MS = 2000
"""From the verdict to each effect on the whole site, at most."""
OF_A_FALL = {
    "live token of an application on the node refused",
    "its service is SUSPENDED for those who ask",
    "its packets go nowhere",
    "its name is gone from the DNS",
}

ABSENCES = [
    "reboot with the good image",
    "quarantine and readmission",
    "power cut in mid-round",
    "site stopped, verifier and all",
    "feed cut off",
    "site killed, verifier and all",
]
"""What comes back by itself, in the order of the story."""


def demo(*options, timeout):
    line = [sys.executable, "-m", "umec_platform.cli", "demo", "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_list_names_every_link_and_every_attack_and_runs_nothing():
    status, lines, errors = demo("--list", timeout=30)
    assert status == 0, errors
    assert [line["link"] for line in lines if "link" in line] == list(range(1, 13))
    assert {line["attack"]: line["expected"] for line in lines if "attack" in line} == ATTACKS
    assert len([line for line in lines if "attack" in line]) == len(TOLD) == len(ATTACKS)
    assert all(line["kind"] and line["has"] for line in lines if "attack" in line)


def test_every_attack_is_refused_by_a_check_that_is_claimed():
    assert len(CLAIMS) > 200
    assert [attack for attack, _, claim in TOLD if claim not in CLAIMS] == []


def test_an_attack_that_does_not_exist_is_refused_before_anything_runs():
    status, lines, _ = demo("--only", "no-such-attack", timeout=30)
    assert status == 1
    assert lines[-1]["code"] == "attack-unknown"


@pytest.mark.system
def test_one_attack_is_shown_alone():
    status, lines, errors = demo("--only", "pcr-relabelled", timeout=120)
    assert status == 0, (lines[-1:], errors)
    assert [line["attack"] for line in lines if "attack" in line] == ["pcr-relabelled"]
    assert {line["link"] for line in lines if "link" in line} == set(range(1, 7))


@pytest.mark.system
def test_every_link_holds_every_attack_is_refused_and_every_effect_arrives():
    status, lines, errors = demo(timeout=480)
    assert status == 0, (lines[-1:], errors)
    assert {line["link"] for line in lines if "link" in line} == set(range(1, 13))
    assert all(line["ok"] and line["evidence"].startswith("sha256:") for line in lines if "link" in line)
    assert {line["attack"]: line["code"] for line in lines if "attack" in line} == ATTACKS
    effects = [line for line in lines if "effect" in line]
    assert all(line["ok"] for line in effects)
    fell = {line["effect"]: line["ms"] for line in effects if line["effect"] in OF_A_FALL}
    assert fell.keys() == OF_A_FALL
    assert max(fell.values()) <= FALL_MS, fell
    told = [line["effect"] for line in effects if "false alarms" in line["effect"]]
    assert told == [f"{story}: false alarms: 0" for story in ABSENCES]
    end = lines[-1]
    assert (end["ok"], end["broken"]) == (True, [])
    assert sum(kind["of"] for kind in end["attacks"].values()) == len(ATTACKS)
    assert all(kind["refused"] == kind["of"] for kind in end["attacks"].values())


@pytest.mark.system
@pytest.mark.parametrize("link", [1, 2])
def test_a_sabotaged_link_is_named(link):
    """The others run as `make sabotage`: each has to go through all the links before its own."""
    status, lines, _ = demo("--sabotage", str(link), timeout=120)
    assert status == 1
    assert [line["link"] for line in lines if line.get("ok") is False and "link" in line] == [link]
    assert lines[-1]["broken"][0].startswith(f"link {link} ")
