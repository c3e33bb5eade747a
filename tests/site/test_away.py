"""Something was away: an operator's trust in a node, its power, the verifier, the feed. It comes back by itself."""

import pytest

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
def effects(in_sandbox):
    """What was seen, by its name."""
    return {each["effect"]: each for each in in_sandbox("away.py") if "effect" in each}


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
