"""Tampering with a node, its boot log and its counters: a verdict against it, or a log that is asked for."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from umec_attest.testing.adversary import drop_event, retype_event, swap_events, truncate_log
from umec_attest.testing.eventlog import EventType, split_log
from umec_attest.testing.fleet.tampering.scene import Body, Scene, b64, signed, tampering
from umec_core.errors import UmecError

__all__: list[str] = []


# --- boot logs --------------------------------------------------------------------------------------------------------


def _with_log(scene: Scene, challenge: Mapping[str, Any], log: bytes) -> Body:
    body = scene.node.evidence(challenge)
    body.pop("boot_log_sha256", None)
    return body | {"boot_log": b64(log)}


@tampering("bootlog-replay-mismatch")
async def _a_log_cut_short(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    events = len(split_log(scene.node.log)) - 1
    return _with_log(scene, challenge, truncate_log(scene.node.log, scene.random.randrange(1, events)))


@tampering("bootlog-replay-mismatch")
async def _an_event_less(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    log = scene.node.log
    return _with_log(scene, challenge, drop_event(log, scene.random.randrange(1, len(split_log(log)))))


@tampering("bootlog-replay-mismatch")
async def _events_in_another_order(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    log = scene.node.log
    by_pcr: dict[bytes, list[int]] = {}
    for index, event in enumerate(split_log(log)[1:], 1):
        by_pcr.setdefault(event[:4], []).append(index)
    several = scene.random.choice([indices for indices in by_pcr.values() if len(indices) > 1])
    return _with_log(scene, challenge, swap_events(log, *scene.random.sample(several, 2)))


@tampering("bootlog-data-mismatch", "bootlog-invalid", "separator-retyped")
async def _a_separator_under_another_type(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    log = scene.node.log
    separators = [
        index
        for index, event in enumerate(split_log(log))
        if index and int.from_bytes(event[4:8], "little") == EventType.SEPARATOR
    ]
    kind = scene.random.choice([EventType.NO_ACTION, EventType.EFI_ACTION, EventType.EFI_VARIABLE_DRIVER_CONFIG])
    return _with_log(scene, challenge, retype_event(log, scene.random.choice(separators), kind))


@tampering("bootlog-invalid", "bootlog-empty", "bootlog-sha1-only")
async def _no_log_in_the_place_of_one(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _with_log(scene, challenge, scene.random.choice([b"", b"\0" * 64, scene.node.log + b"\1"]))


@tampering("bootlog-replay-mismatch")
async def _the_log_of_another_boot(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _with_log(scene, challenge, scene.random.choice(list(scene.changed.values())).log)


@tampering("boot-log-required")
async def _the_hash_of_another_log(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence({**challenge, "boot_log": "digest"})
    return body | {"boot_log_sha256": hashlib.sha256(scene.random.randbytes(8)).hexdigest()}


@tampering("boot-log-required")
async def _no_log_after_a_reboot(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.reboot()
    body = scene.node.evidence({**challenge, "boot_log": "digest"})
    return {name: member for name, member in body.items() if name != "boot_log_sha256"}


# --- the state of the node --------------------------------------------------------------------------------------------


async def _asked_again(scene: Scene, challenge: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Body]) -> Body:
    """Answer, and where the whole log and list are wanted because of that, answer once more with them."""
    try:
        await scene.verifier.submit(make(challenge))
    except UmecError as error:
        if error.code != "boot-log-required":
            raise
    return make(await scene.verifier.challenge(scene.node.name))


@tampering("pcr-unexpected")
async def _a_changed_image(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.reboot(scene.random.choice(list(scene.changed.values())))
    return await _asked_again(scene, challenge, lambda asked: _with_log(scene, asked, scene.node.log))


@tampering("bootlog-replay-mismatch")
async def _a_changed_image_and_the_good_log(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    good = scene.node.log
    scene.node.reboot(scene.random.choice(list(scene.changed.values())))
    return await _asked_again(scene, challenge, lambda asked: _with_log(scene, asked, good))


@tampering("boot-log-required")
async def _a_changed_image_and_no_log(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    good = hashlib.sha256(scene.node.log).hexdigest()
    scene.node.reboot(scene.random.choice(list(scene.changed.values())))
    return scene.node.evidence({**challenge, "boot_log": "digest"}) | {"boot_log_sha256": good}


@tampering("pcr-unexpected", "bootlog-replay-mismatch", "ima-replay-mismatch")
async def _something_more_measured(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.extend(scene.random.choice(challenge["pcrs"]["sha256"]), scene.random.randbytes(8))
    return scene.node.evidence(challenge)


def _clock(scene: Scene, challenge: Mapping[str, Any], **changes: Any) -> Body:  # noqa: ANN401 - fields of the clock
    return signed(scene, challenge, clock=replace(scene.node.clock, **changes))


@tampering("reset-count-fell")
async def _fewer_resets_than_before(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    count = scene.random.randrange(scene.node.clock.reset_count)

    def make(asked: Mapping[str, Any]) -> Body:
        return _with_log(scene, asked, scene.node.log) | _only_quote(_clock(scene, asked, reset_count=count))

    return await _asked_again(scene, challenge, make)


@tampering("restart-count-fell")
async def _fewer_restarts_than_before(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.suspend()
    await scene.verifier.submit(await _asked_again(scene, challenge, scene.node.evidence))
    count = scene.node.clock.restart_count - 1
    again = await scene.verifier.challenge(scene.node.name)
    return await _asked_again(scene, again, lambda asked: _clock(scene, asked, restart_count=count))


@tampering("clock-fell")
async def _an_earlier_clock(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _clock(scene, challenge, clock=scene.random.randrange(scene.node.clock.clock))


@tampering("firmware-version-fell")
async def _an_older_firmware_of_the_tpm(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _clock(scene, challenge, firmware_version=scene.node.clock.firmware_version - 1)


def _only_quote(body: Body) -> Body:
    return {name: body[name] for name in ("quote", "signature")}
