"""`umec node explain` on the real service: for every standing, what was found, what decided, what to do."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from umec_attest.bootlog import parse_boot_log
from umec_attest.service.nodes.explain import measured_events, pcrs_in
from umec_attest.testing.image import Tamper
from umec_core.standing import Standing
from umec_platform.cli.node.explain import STEPS, duration, explanation, next_steps, summary

Run = Callable[..., None]


async def told(world: Any) -> tuple[str, list[str]]:
    """What the command prints about node-1, and the next steps."""
    answer = await world.get("nodes/node-1/explain")
    now = world.clock() + timedelta(hours=2)
    text = explanation(answer, now)
    assert f"{answer['standing']} (generation {answer['generation']})" in text
    assert "(2 h" in text
    assert all(line in text.splitlines() for line in summary(answer, now).splitlines())
    return text, next_steps(answer)


def test_a_changed_boot_is_explained_down_to_the_event(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            text, steps = await told(world)
            assert (steps, "finding" in text, "trust-measured-state" in text) == ([], False, True)

            booted.reboot(Tamper.CMDLINE)
            await world.round(booted, status=422)
            await world.round(booted)
            answer = await world.get("nodes/node-1/explain")
            found = next(each for each in answer["last_round"]["findings"] if each["id"] == "pcr-unexpected")
            text, steps = await told(world)
            assert f"expected  {found['expected']}" in text
            assert f"found     {found['found']}" in text
            assert answer["reason"] == "contraindicated: pcr-unexpected (kernel image, command line), rebooted"
            assert "not that of the image: command line" in text
            assert "forbid-unknown-measurement" in text or "no policy that permits" in text
            assert answer["last_round"]["policy_sha256"] in text
            differing = [event for event in answer["events"] if event["as_expected"] is False]
            assert differing
            assert {event["pcr"] for event in answer["events"]} == set(pcrs_in(answer["last_round"]["findings"]))
            assert all(event["digest"] in text for event in answer["events"])
            assert "NOT AS ON A TRUSTED NODE" in text
            assert any("new boot" in step for step in steps)

            booted.reboot()
            await world.round(booted)
            assert next_steps(await world.get("nodes/node-1/explain")) == []

    run(body)


def test_without_a_trusted_node_of_the_image_the_events_are_shown_as_they_are(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            booted.reboot(Tamper.INITRD)
            await world.round(booted, status=422)
            await world.round(booted)
            events = (await world.get("nodes/node-1/explain"))["events"]
            assert {event["as_expected"] for event in events} == {None}

    run(body)


def test_every_other_standing_is_explained(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await world.reference()
            text, steps = await told(world)
            assert "nobody yet" in text
            assert "first good round" in steps[0]
            await world.round(booted)
            await world.pass_time(200)
            text, steps = await told(world)
            assert "silence" in text
            assert "silent since" in text
            assert "by itself" in steps[-1]
            await world.round(booted)
            await world.post("nodes/node-1/quarantine", {"reason": "a box was open"}, headers=world.admin)
            text, steps = await told(world)
            assert "a box was open" in text
            assert "an operator" in text
            assert steps[0].startswith("umec node readmit node-1")
            await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert "first good round" in (await told(world))[1][0]
            await world.post("nodes/node-1/revoke", {"reason": "sold"}, headers=world.admin)
            text, steps = await told(world)
            assert "sold" in text
            assert steps[0].startswith("umec node ticket node-1")
            assert "revoked" in text.splitlines()[1]

    run(body)


def test_secure_boot_off_is_a_degraded_node(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            answer = await world.get("nodes/node-1/explain")
            finding = {"id": "secure-boot-off", "detail": "the firmware did not enforce it", "expected": "on"}
            answer |= {"standing": "degraded", "last_round": answer["last_round"] | {"findings": [finding]}}
            assert next_steps(answer)[0].startswith("switch Secure Boot on")
            told_only = [{"id": name, "detail": "…"} for name in ("rebooted", "no-such-finding")]
            assert len(next_steps(answer | {"last_round": answer["last_round"] | {"findings": told_only}})) == 1
            waiting = answer | {"standing": "pending", "approved": False}
            assert next_steps(waiting)[0].startswith("umec node approve node-1")
            same_boot = answer | {
                "standing": "untrusted",
                "last_round": answer["last_round"] | {"verdict": "affirming"},
            }
            assert "of the same boot" in next_steps(same_boot)[0]

    run(body)


def test_events_are_those_of_the_named_pcrs(tpms: Any) -> None:
    with tpms.booted() as booted:
        log = parse_boot_log(booted.log)
    findings = [{"detail": "PCR 4 (sha256) is not"}, {"detail": "PCR 11: twice"}, {"detail": "the clock fell"}]
    assert pcrs_in(findings) == (4, 11)
    events = measured_events(log, (4,), log)
    assert {event["pcr"] for event in events} == {4}
    assert all(event["as_expected"] for event in events)
    assert measured_events(log, (), log) == []


def test_every_standing_has_its_steps() -> None:
    assert set(STEPS) == {standing.value for standing in Standing}


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (3600, "1 h"), (93784, "1 d 2 h"), (3725, "1 h 2 min")]
)
def test_a_time_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text
