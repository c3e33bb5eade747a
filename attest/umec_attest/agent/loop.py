"""The agent: round after round, it proves the node's state and keeps the node's credentials alive.

A failure never ends it: it says what went wrong, waits (longer each time, never in step with other nodes) and tries
again. A verdict against the node takes its credentials away here too, though others have refused them already. Nor
does it hold credentials by the word of a verifier whose log is not what it was (`witness`).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.again import ASK_AGAIN, LIST_CONTINUES, MOST_PARTS
from umec_attest.agent.binding import Binding, binding_due, sign_by
from umec_attest.agent.credentials import Credentials
from umec_attest.agent.doors import Door
from umec_attest.agent.download import download
from umec_attest.agent.errors import LogDistrusted, LogRefused, NotAttested
from umec_attest.agent.evidence import BOOT_LOG, RUNTIME_LIST, Evidence, collect, save_evidence, save_result
from umec_attest.agent.former_keys import KEYS_UNKNOWN, exchange_keys, former_states
from umec_attest.agent.pace import Pace, pause, spread, unless
from umec_attest.agent.platform_client import PlatformClient
from umec_attest.agent.report import Report
from umec_attest.agent.requests import Start
from umec_attest.agent.rotation import rotate, rotation_pending
from umec_attest.agent.session import open_session
from umec_attest.agent.start_log import StartLog
from umec_attest.agent.state import NodeState
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.transport import Answer
from umec_attest.agent.verdict_file import judged_by
from umec_attest.agent.wire import Result
from umec_attest.agent.witness import LogWitness
from umec_core.clock import Clock, system_clock
from umec_core.errors import Kind, UmecError
from umec_core.remote import RemoteRefused

__all__ = ["ROTATION_PERIOD", "Agent"]

HOST_SCOPE: Final = "node:host"
FIRST_ROUND_SECONDS: Final = 30.0
"""Until the verifier has said how long a round is."""
PATIENCE_SECONDS: Final = 8.0
"""A standing feed that is older than ten seconds is no longer believed; news that take longer do not come."""
LOOK_EVERY: Final = 20
"""Rounds without a new result after which the verifier's log is looked at all the same."""
ROTATION_PERIOD: Final = timedelta(days=30)
ROTATION_PAUSE: Final = 600.0
"""Seconds until a rotation that was refused is tried again."""


class Agent:
    """The agent of one enrolled node. Its methods belong to one event loop; the TPM is asked in a thread."""

    def __init__(
        self,
        state: NodeState,
        tpm: Tpm,
        *,
        directory: Path,
        boot_log: Path = BOOT_LOG,
        runtime_list: Path = RUNTIME_LIST,
        save: Path | None = None,
        report: Report | None = None,
        clock: Clock = system_clock,
        pace: Pace | None = None,
        rotation: timedelta | None = ROTATION_PERIOD,
        binding: Binding | None = None,
    ) -> None:
        """`directory` keeps the state; keys that are older than `rotation` get successors, with None never.

        A node key that is not bound as `binding` says gets one after the first good round.
        """
        self._directory = directory
        self._state = state
        self._tpm = tpm
        self._boot_log = boot_log
        self._runtime_list = runtime_list
        self._save = save
        self._report: Report = report if report is not None else _silent
        self._clock = clock
        self._pace = pace if pace is not None else Pace()
        self._platform = PlatformClient(state.url, state.ca)
        self._witness = LogWitness(directory)
        self._looked = -LOOK_EVERY
        self._rotation = None if rotation is None else timedelta(seconds=spread(rotation.total_seconds()))
        self._binding = binding
        self._rotate_from = 0.0
        self._turn = asyncio.Lock()
        self._renewing = asyncio.Lock()
        self._credentials = Credentials(clock)
        self._starts = StartLog(directory, tpm)
        self._round_seconds = FIRST_ROUND_SECONDS
        self._rounds = 0
        self._last: Mapping[str, Any] = {}

    async def close(self) -> None:
        """Forget the credentials and close the connections; the TPM stays with its owner."""
        await self._credentials.close()
        await self._platform.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Attest until `stop` is set; what failed is tried again, and no round is done before its time."""
        failures = 0
        due = time.monotonic()
        while not stop.is_set():
            try:
                if time.monotonic() >= due:
                    if not await unless(stop, self._round()):
                        break
                    due = time.monotonic() + spread(self._round_seconds)
                if self._credentials.result is not None and not await unless(stop, self.renew()):
                    break
                failures = 0
                wait = due - time.monotonic()
            except UmecError as error:
                failures += 1
                wait = self._pace.after(failures, asked=error.retry_after, most=self._round_seconds)
                event = "alarm" if isinstance(error, LogRefused | LogDistrusted) else "refused"
                self._report(self._refusal(event, error, retry_seconds=round(wait, 1)))
            await pause(stop, max(wait, 0.0))

    async def settle(self, patience: float = PATIENCE_SECONDS) -> None:
        """Renew as often as it takes: the news of a verdict reach the authorization server a moment after the node."""
        give_up = time.monotonic() + patience
        while True:
            try:
                return await self.renew()
            except NotAttested:
                raise  # there is nothing to wait for
            except UmecError:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(self._pace.after(1) / 4)

    async def attest(self) -> Result:
        """Do one round and report it. Raises AgentError, RemoteRefused, RemoteUnavailable.

        What a new challenge mends is mended at once: after a reboot the verifier finds out from the quote that it lacks
        the boot log, and asks for it. A rotation that was begun is ended first: the verifier may know its keys only.
        """
        async with self._turn:
            if rotation_pending(self._directory):
                await self._try_rotation()
            started = time.monotonic()
            self._rounds += 1
            try:
                try:
                    evidence, result = await self._exchange_known()
                except RemoteRefused as error:
                    if error.code not in ASK_AGAIN:
                        self._rotate_from = 0.0  # if a rotation is pending, that may be why
                        raise
                    evidence, result = await self._exchange_known()
            except (LogRefused, LogDistrusted):
                await self._credentials.let_go()
                raise
            await self._credentials.take(result)
            self._report(self._status(result, evidence, time.monotonic() - started))
            return result

    async def rotate(self) -> None:
        """Get a new AK and a new node key, and let go of what was bound to the former ones; `attest` brings the rest.

        Raises AgentError, RemoteRefused, RemoteUnavailable.
        """
        async with self._turn:
            await self._rotate()

    async def renew(self) -> None:
        """Get a certificate and the host's token where the present ones end soon or are of an older generation.

        Meanwhile others go on with the present ones. Raises NotAttested, AgentError, RemoteRefused, RemoteUnavailable.
        """
        async with self._renewing:
            result = self._credentials.current()
            if self._credentials.due(result):
                session = await open_session(
                    node=self._state.node,
                    url=self._state.url,
                    ca=self._state.ca,
                    result=result,
                    sign=self._sign,
                    clock=self._clock,
                )
                await self._credentials.put(session)
                got = session.credential
                told = {"generation": got.generation, "expires_at": _time(got.expires)}
                self._report({**self.line("certificate"), **told})
            with self._credentials.lent() as session:
                session.result = result
                _, expires = await session.token(f"{self._state.url}/platform/v1", HOST_SCOPE)
        self._last = {**self._last, "token_expires_at": _time(expires)}

    async def token(self, resource: str, scope: str) -> tuple[str, datetime]:
        """Return a token bound to the node's present certificate, and when it ends."""
        with self._credentials.lent() as session:
            return await session.token(resource, scope)

    async def call(
        self, method: str, url: str, *, resource: str, scope: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        """Send one request in the node's name; its answer may be a refusal."""
        with self._credentials.lent() as session:
            return await session.call(method, url, resource=resource, scope=scope, content=content, headers=headers)

    @contextlib.asynccontextmanager
    async def download(self, url: str, *, resource: str, scope: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give a long answer in pieces, in the node's name; it goes on while certificates are renewed.

        Raises NotAttested, RemoteRefused, RemoteUnavailable.
        """
        with self._credentials.lent() as session:
            text, _ = await session.token(resource, scope)
            credential = session.credential
        headers = {"Authorization": f"Bearer {text}"}
        async with download(url, ca=self._state.ca, credential=credential, headers=headers) as pieces:
            yield pieces

    async def door(self, host: str, port: int) -> Door:
        """Open a connection to a server of the site that shows the node's certificate, for another program.

        Raises NotAttested, DoorsBusy, RemoteUnavailable.
        """
        return await self._credentials.door(host, port)

    async def measure_start(self, start: Start) -> int:
        """Write down that an application is started, extend PCR 15 with it, and return its number in this boot.

        Raises StartUndecided, StartLogFull, StartLogDiverged, AgentStateInvalid, TpmUnavailable, TpmRefused: the start
        must not take place.
        """
        return await asyncio.to_thread(self._starts.add, start, self._state.node, self._clock())

    def status(self) -> Mapping[str, Any]:
        """Return the last status line, with what was obtained since."""
        return self._last

    async def _round(self) -> None:
        """Do one round, and rotate after a good one where it is time to: the new keys go on from what it said."""
        result = await self.attest()
        if result.ear is None:
            return
        async with self._turn:
            rotated = self._rotation_due() and await self._try_rotation()
        if rotated:
            await self.attest()

    def _rotation_due(self) -> bool:
        if self._rotation is None:
            return False
        aged = self._clock() - self._state.keys_since >= self._rotation
        return aged or binding_due(self._state.node_key, self._binding)

    async def _try_rotation(self) -> bool:
        """Rotate in our turn, and tell whether it was done. A refusal is reported, and keeps nobody from attesting."""
        if time.monotonic() < self._rotate_from:
            return False
        try:
            await self._rotate()
        except UmecError as error:
            wait = 0.0 if error.kind is Kind.UNAVAILABLE else ROTATION_PAUSE
            self._rotate_from = time.monotonic() + wait
            self._report(self._refusal("refused", error, retry_seconds=wait or self._round_seconds))
            return False
        return True

    async def _rotate(self) -> None:
        self._witness.check()
        former = self._state
        self._state = await rotate(
            self._directory, former, self._tpm, self._platform, binding=self._binding, now=self._clock()
        )
        self._tpm.forget(former.ak, former.node_key)
        await self._credentials.let_go()
        self._report({**self.line("rotated"), "ak_name": self._state.ak.name.hex()})

    async def _exchange_known(self) -> tuple[Evidence, Result]:
        """Do one round; go back to keys of before where the verifier knows those, because its database was restored.

        Keys as old as that have successors soon. The present ones are kept, in case that the database comes back, too.
        """
        present = self._state
        try:
            return await self._exchange(present)
        except RemoteRefused as error:
            if error.code != KEYS_UNKNOWN:
                raise
            refused = error
        for former in former_states(self._directory, present, self._clock()):
            try:
                done = await self._exchange(former)
            except RemoteRefused as error:
                if error.code != KEYS_UNKNOWN:
                    raise
                self._tpm.forget(former.ak)
                continue
            exchange_keys(self._directory, present, former, self._clock())
            self._state = former
            self._tpm.forget(present.ak, present.node_key)
            await self._credentials.let_go()
            self._report({**self.line("keys-restored"), "ak_name": former.ak.name.hex()})
            return done
        raise refused

    async def _exchange(self, state: NodeState) -> tuple[Evidence, Result]:
        """Do one round with these keys; a list of what ran that is too long for one request goes in several."""
        for _ in range(MOST_PARTS - 1):
            try:
                return await self._exchange_part(state)
            except RemoteRefused as error:
                if error.code != LIST_CONTINUES:
                    raise
        return await self._exchange_part(state)

    async def _exchange_part(self, state: NodeState) -> tuple[Evidence, Result]:
        self._witness.check()
        challenge = await self._platform.challenge(state.node)
        self._round_seconds = challenge.round_seconds
        evidence = await asyncio.to_thread(
            collect, self._tpm, state, challenge, self._boot_log, self._runtime_list, starts=self._directory
        )
        if self._save is not None:
            save_evidence(self._save, state, evidence, self._runtime_list, starts=self._directory)
        result = await self._platform.evidence(evidence.request(state.node, challenge))
        await self._look(result)
        if self._save is not None:
            save_result(self._save, result.ear)
        return evidence, result

    async def _look(self, result: Result) -> None:
        """See that the verifier's log goes on from what it was, before a new result counts, and now and then."""
        known = None if self._credentials.result is None else self._credentials.result.text
        if (result.ear is None or result.ear == known) and self._rounds - self._looked < LOOK_EVERY:
            return
        await self._witness.look(self._platform.checkpoint, self._clock())
        self._looked = self._rounds

    async def _sign(self, digest: bytes) -> bytes:
        """Sign with the node key: 2 ms on a software TPM, 9 with one that is bound; much longer on hardware."""
        return await asyncio.to_thread(sign_by, self._tpm, self._state.node_key, digest, self._binding)

    def line(self, event: str) -> dict[str, Any]:
        """Return what every line has that is reported."""
        return {"event": event, "round": self._rounds, "node": self._state.node, "at": _time(self._clock())}

    def _status(self, result: Result, evidence: Evidence, seconds: float) -> Mapping[str, Any]:
        self._last = {
            **self.line("round"),
            "verdict": result.verdict,
            "standing": result.standing,
            "generation": result.generation,
            "version": judged_by(result.ear),
            "certificate": self._credentials.certified(result.generation),
            "findings": [finding.to_json() for finding in result.findings],
            "boot_log_bytes": len(evidence.boot_log),
            "ms": round(seconds * 1000, 1),
        }
        return self._last

    def _refusal(self, event: str, error: UmecError, **more: object) -> Mapping[str, Any]:
        line = {**self.line(event), "code": error.code, "detail": error.detail, **more}
        return line if error.advice is None else {**line, "advice": error.advice}


def _silent(_line: Mapping[str, Any]) -> None:
    """Report to nobody."""


def _time(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
