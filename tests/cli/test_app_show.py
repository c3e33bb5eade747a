"""`umec app show`: what a reader is told about an instance, by what the platform says of it."""

import pytest

from umec_platform.cli.app import _next_steps, _shown

RUNS = {
    "id": "i-1",
    "tenant": "city",
    "appDId": "hello",
    "appPkgId": "p-1",
    "instantiationState": "INSTANTIATED",
    "instantiatedAppState": {"operationalState": "STARTED"},
    "host": "node-a",
    "address": "10.64.0.2",
    "ready": True,
}


def told(instance):
    steps = _next_steps(instance)
    return _shown(instance, steps), steps


def test_one_that_runs_needs_nothing():
    text, steps = told(RUNS)
    assert steps == []
    assert "runs on   node-a at 10.64.0.2; it has said that it is ready" in text


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("host-not-trusted", "umec node explain"),
        ("instance-ended", "umec app log"),
        ("image-denied", "umec image denials"),
        ("promotion-missing", "umec image promote"),
        ("a-code-of-tomorrow", "umec app log i-1"),
    ],
)
def test_one_that_is_down_says_why_when_and_what_to_do(code, advice):
    down = RUNS | {"instantiatedAppState": {"operationalState": "STOPPED"}, "ready": False}
    down |= {"stopped": {"code": code, "detail": "because", "retryAt": "2026-01-01T00:00:00Z"}}
    del down["address"]
    text, steps = told(down)
    assert f"down      {code}: because; tried again at 2026-01-01T00:00:00Z" in text
    assert "no address now" in text
    assert any(advice in step for step in steps)
    assert all(f"next      {step}" in text for step in steps)


def test_one_that_is_not_ready_or_never_ran_says_so():
    assert "umec app log i-1" in told(RUNS | {"ready": False})[1][0]
    idle = {name: RUNS[name] for name in ("id", "tenant", "appDId", "appPkgId")}
    text, steps = told(idle | {"instantiationState": "NOT_INSTANTIATED"})
    assert "umec app instantiate hello" in steps[0]
    assert "runs on" not in text
