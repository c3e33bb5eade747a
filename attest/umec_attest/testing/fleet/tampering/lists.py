"""Tampering with the list of what runs (IMA), or running something else: a verdict against the node.

They need nodes with `programs`: all of these may run.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from umec_attest.testing.adversary import flip_byte
from umec_attest.testing.fleet.tampering.scene import Body, Scene, b64, tampering
from umec_attest.testing.runtime import VIOLATION, RuntimeList, measured

__all__: list[str] = []

TEMPLATE_AT = 28
"""Where the name of the template begins, behind PCR, hash and size."""


def _ran(scene: Scene, count: int = 3) -> None:
    """Start some programs that may run."""
    for path, content in scene.random.choices(scene.node.programs, k=count):
        scene.node.start(path, content)


def _listed(scene: Scene, challenge: Mapping[str, Any], change: Callable[[list[bytes]], list[bytes]]) -> Body:
    """Let programs run, and send the entries about them changed."""
    _ran(scene)
    body = scene.node.evidence(challenge)
    runtime = scene.node.runtime
    tail = [] if runtime is None else runtime.entries[body["ima_from"] :]
    return body | {"ima": b64(b"".join(change(list(tail))))}


def _changed_entry(scene: Scene, challenge: Mapping[str, Any], change: Callable[[bytes], bytes]) -> Body:
    return _listed(scene, challenge, lambda tail: [*tail[:-1], change(tail[-1])])


# --- another list than that of the quote ------------------------------------------------------------------------------


@tampering("ima-replay-mismatch")
async def _an_entry_left_out(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _listed(scene, challenge, lambda tail: tail[:-2] + tail[-1:])


@tampering("ima-replay-mismatch")
async def _a_list_that_ends_before_the_quote(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _listed(scene, challenge, lambda tail: tail[:-1])


@tampering("ima-replay-mismatch", "ima-aggregate-mismatch")
async def _entries_in_another_order(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.start(*scene.node.programs[0])
    scene.node.start(*scene.node.programs[-1])
    body = scene.node.evidence(challenge)
    runtime = scene.node.runtime
    tail = [] if runtime is None else runtime.entries[body["ima_from"] :]
    return body | {"ima": b64(b"".join([*tail[:-2], tail[-1], tail[-2]]))}


@tampering("ima-replay-mismatch", "ima-invalid", "ima-template-unknown")
async def _a_bit_of_the_list(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _changed_entry(scene, challenge, lambda entry: flip_byte(entry, scene.random.randrange(len(entry))))


@tampering("ima-invalid")
async def _a_measurement_made_a_violation(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _changed_entry(scene, challenge, lambda entry: entry[:4] + VIOLATION + entry[24:])


@tampering("ima-template-unknown", "ima-invalid")
async def _another_template(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    name = scene.random.choice([b"ima-xx", b"imasig", b"d-ng\0\0"])
    return _changed_entry(scene, challenge, lambda entry: entry[:TEMPLATE_AT] + name + entry[TEMPLATE_AT + 6 :])


@tampering("ima-invalid")
async def _an_entry_of_another_pcr(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _changed_entry(scene, challenge, lambda entry: (11).to_bytes(4, "little") + entry[4:])


@tampering("ima-invalid")
async def _an_entry_beyond_the_list(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return _changed_entry(scene, challenge, lambda entry: entry[:-1])


@tampering("ima-replay-mismatch")
async def _a_program_hidden_behind_another(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    path, content = scene.node.programs[0]
    good = measured(path, hashlib.sha256(content).digest())
    scene.node.start("/tmp/rootkit", scene.random.randbytes(8))  # noqa: S108 - a name in a list
    body = scene.node.evidence(challenge)
    runtime = scene.node.runtime
    tail = [] if runtime is None else runtime.entries[body["ima_from"] : -1]
    return body | {"ima": b64(b"".join([*tail, good]))}


@tampering("ima-missing")
async def _no_list(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    return {name: member for name, member in body.items() if name not in {"ima", "ima_from"}}


@tampering("nonce-superseded")
async def _another_part_of_the_list(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    return body | {"ima_from": body["ima_from"] + scene.random.choice([-1, 1, 1000])}


# --- something else runs ----------------------------------------------------------------------------------------------


@tampering("ima-file-unknown")
async def _a_program_that_nobody_listed(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.start("/usr/bin/nc", scene.random.randbytes(8))
    return scene.node.evidence(challenge)


@tampering("ima-file-changed")
async def _a_changed_program(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    path, content = scene.random.choice(scene.node.programs)
    scene.node.start(path, content + b"\0")
    return scene.node.evidence(challenge)


@tampering("ima-digest-weak", "ima-digest-unknown")
async def _a_program_under_a_weak_hash(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    path, content = scene.node.programs[0]
    label = scene.random.choice(["sha1", "md5"])
    digest = hashlib.new(label, content, usedforsecurity=False).digest()
    scene.node.measure(measured(path, digest, label=label))
    return scene.node.evidence(challenge)


@tampering("ima-path-invalid", "ima-file-unknown", "ima-invalid")
async def _a_name_that_is_no_path(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    path, content = scene.node.programs[0]
    name = scene.random.choice([f"{path}\n", f"/usr/bin/..{path}", f"{path}\0x", path.lstrip("/")])
    scene.node.measure(measured(name, hashlib.sha256(content).digest()))
    return scene.node.evidence(challenge)


@tampering("ima-kexec")
async def _another_kernel_by_kexec(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.node.measure(RuntimeList.of(scene.node.pcrs, []).entries[0])
    return scene.node.evidence(challenge)


@tampering("ima-violation")
async def _a_file_that_changed_while_it_was_measured(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    entry = measured(scene.node.programs[0][0], bytes(32))
    scene.node.measure(entry[:4] + VIOLATION + entry[24:])
    return scene.node.evidence(challenge)
