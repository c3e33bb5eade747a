"""A host on another machine than the platform, with real processes and TCP between them: what holds, and what ends."""

import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def seen(in_sandbox):
    """What was seen on one street, by the name of its story."""
    return in_sandbox("remote.py")[-1]


def test_an_application_starts_with_its_rule_and_its_name_from_an_image_that_the_node_fetched(seen):
    status = seen["built"]["status"]
    assert (status["in_force"], status["traffic"], status["dns"]) == (True, 1, 1)
    assert [one["running"] for one in status["instances"]] == [True]
    assert seen["built"]["images"] >= 3


def test_a_request_that_was_cut_off_is_refused_and_the_node_goes_on(seen):
    cut = seen["cut"]
    assert (cut["code"], cut["still"], cut["instances"]) == ("host-silent", True, 1)


def test_another_node_that_stands_is_not_its_relay(seen):
    assert seen["other"] == {"": "host-unknown", "requests": "relay-unknown", "answers": "relay-answer-invalid"}


def test_a_restart_of_the_platform_stops_nothing_on_the_node(seen):
    restarted = seen["restarted"]
    assert (restarted["alone"], restarted["same"], restarted["in_force"]) == (True, True, True)
    assert restarted["state"] == "STARTED"


def test_a_second_relay_takes_the_place_of_the_first(seen):
    assert seen["relay_again"]["code"] is None


def test_when_the_node_falls_all_is_withdrawn_long_before_its_lease_ends(seen):
    fall = seen["fall"]
    assert (fall["held"], fall["standing"]) == (True, "untrusted")
    assert (fall["packet"], fall["name"]) == (None, None)
    assert (fall["services"], fall["log"]) == (["SUSPENDED"], "host-silent")
    assert fall["lease_seconds"] < 45
