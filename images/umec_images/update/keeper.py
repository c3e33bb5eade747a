"""`python -m umec_images.update.keeper`: the program of a node that writes its disk, as root, for an agent that is not.

The agent fetches; this believes nothing of what it hands in but what it checks itself:

1. the manifest has the digest that was named, it is of this node's image, and its version is higher than that of the
   confirmed one; what failed here is taken only for a newer order;
2. the kernel image is the one of the manifest, says the same of itself, and is signed by a certificate of the
   firmware's db;
3. the root file system goes into the other slot as it comes. It counts when it has the digest of the manifest and the
   hash tree of the signed command line; until then nothing refers to it.

It cannot check whether the site admits the image, nor that the verifier trusts the node and it has a certificate by
that: the agent asks for the one before and after it fetches, and tells the others. A trial in which it does not tell
both in time is left by a restart.
"""

import argparse
import os
import pwd
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from umec_core.errors import UmecError
from umec_images.nodeimage.disk import APPROVAL_AREA
from umec_images.nodeimage.papers import Papers
from umec_images.update.device import open_disk
from umec_images.update.disk import Survey, survey
from umec_images.update.errors import (
    DiskUnfit,
    ImageCurrent,
    ImageFailed,
    ImageOlder,
    ImageOther,
    TrialOpen,
    UpdateError,
    UserOther,
)
from umec_images.update.firmware import SECURITY_DATABASE
from umec_images.update.image import APPROVAL, KERNEL, MAX_KERNEL, ROOT, assemble_image, check_papers
from umec_images.update.node import Node, this_node
from umec_images.update.phases import Outcome
from umec_images.update.request import Line, Take, Try
from umec_images.update.state import Phase
from umec_images.update.status import describe, describe_trouble, write_status
from umec_images.update.trial import NOT_CONFIRMED, Decision, decide, read_said, why_left
from umec_images.update.updater import check_room, confirm, leave, plan, settled, stage, try_staged

__all__ = ["Keeper", "main"]

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at what the agent says, while an image is on trial."""
SETTLE_EVERY: Final = 10.0
"""Seconds between two tries to read a disk that failed when the machine started: each reads the kernel images."""
STATUS: Final = "update.json"
SOCKET: Final = "update.sock"
CONFIRMED: Final = "confirmed"
"""A file that tells the script which started this that the trial is over."""
UNREAD: Final = "firmware-certificate-unread"
"""What the firmware's db has as an X.509 certificate is none that is understood here."""
_CREDENTIALS: Final = struct.Struct("3i")
"""SO_PEERCRED: process, user, group."""


class Keeper:
    """Keeps the disk of a node. `folder` is where it tells and listens, `standing` the agent's file of verdicts.

    `elapsed` gives the seconds since the machine started: a trial is not longer for a keeper that starts again.
    """

    def __init__(
        self,
        node: Node,
        folder: Path,
        standing: Path,
        *,
        trial_seconds: float,
        say: Callable[[str], None],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._folder = folder
        self._standing = standing
        self._limit = trial_seconds
        self._say = say
        self._elapsed = elapsed
        self._settled = False
        self._trouble = ""
        self.on_trial = False

    def settle(self) -> None:
        """Note and tell what the update has come to, when the machine has started.

        Where the disk fails, `watch` tries it again: a trial of which nobody knows would run out.
        """
        try:
            with open_disk(self._node.disk, writing=True) as device:
                seen, outcome = settled(device, self._node.running)
        except UmecError as error:
            write_status(self._folder / STATUS, describe_trouble(error))
            trouble = f"update: {error.code}: {error.detail}"
            if trouble != self._trouble:
                self._say(trouble)
            self._trouble = trouble
            return
        self._settled = True
        self.on_trial = outcome is Outcome.ON_TRIAL
        self._say(f"update: {outcome.value}, version {seen.confirmed.version} is confirmed")
        self._tell(seen)

    def watch(self) -> None:
        """Look whether the trial is over, and do what then is to be done."""
        if self._settles():
            self.settle()
        if not self.on_trial:
            return
        said = read_said(self._standing)
        decision, why = decide(said, self._elapsed(), self._limit), why_left(said)
        try:
            if decision is Decision.CONFIRM:
                self._confirm()
        except UmecError as error:  # its copy on the disk is damaged: the time goes on
            self._say(f"update: {error.code}: {error.detail}")
            decision, why = decide(None, self._elapsed(), self._limit), NOT_CONFIRMED
        if decision is Decision.LEAVE:
            self._leave(why)

    def serve(self, door: socket.socket, users: Sequence[int]) -> None:
        """Answer one agent after the other, and watch the trial."""
        while True:
            self.watch()
            wait = LOOK_EVERY if self.on_trial else SETTLE_EVERY if self._settles() else None
            if not select.select([door], [], [], wait)[0]:
                continue
            connection, _ = door.accept()
            with connection:
                self.answer(connection, users)

    def answer(self, connection: socket.socket, users: Sequence[int]) -> None:
        """Do what one agent asks for; a refusal is an answer, too."""
        line = Line(connection)
        try:
            _check_user(connection, users)
            request = line.request()
            match request:
                case Take():
                    line.done(self.take(line, request).value)
                case Try():
                    phase = self.try_image(request)
                    with suppress(OSError):
                        line.done(phase.value)
                    self._say("update: restarting into its trial")
                    self._node.restart()
        except UmecError as error:
            self._say(f"update: {error.code}: {error.detail}")
            line.refuse(error)
        except OSError as error:
            self._say(f"update: {error}")

    def take(self, line: Line, request: Take) -> Phase:
        """Put an image into the other slot. Raises UpdateError, PapersInvalid, OSError (of the connection)."""
        if self.on_trial:
            raise TrialOpen("an image is on trial: nothing is taken until it is confirmed")
        papers = check_papers(b"".join(line.part(request.size)), request.manifest)  # 1
        with open_disk(self._node.disk, writing=True) as device:
            seen = survey(device)
            self._check_order(seen, request, papers.name, papers.version, papers.files[KERNEL][0])
            _check_sizes(seen, papers)
            approval = _part(line, papers, APPROVAL) if APPROVAL in papers.files else b""
            kernel_image = _part(line, papers, KERNEL)
            root_size = papers.files[ROOT][1]

            def root() -> Iterable[bytes]:
                line.want(ROOT, root_size)
                return line.part(root_size)

            image = assemble_image(request.manifest, papers, kernel_image, root, approval)  # 2
            self._check_signature(kernel_image)
            planned = plan(device, image, self._node.running, attempt=request.attempt)
            try:
                phase = stage(planned, self._node.variables).phase  # 3
            finally:
                self._tell(survey(device))
        self._say(f"update: version {papers.version} is in the other slot")
        return phase

    def try_image(self, request: Try) -> Phase:
        """Have the firmware start the image that was taken, once. Raises UpdateError."""
        with open_disk(self._node.disk, writing=True) as device:
            phase = try_staged(device, self._node.variables, request.manifest).phase
            self._tell(survey(device))
        return phase

    def _settles(self) -> bool:
        """Tell whether this start may still turn out to be a trial's: the disk was not read, and time is left."""
        return not self._settled and self._elapsed() < self._limit

    def _check_order(self, seen: Survey, request: Take, name: str, version: int, kernel: str) -> None:
        """Refuse by the manifest alone what `plan` refuses later anyway: nothing is fetched for that."""
        confirmed, record = seen.confirmed, seen.record
        if kernel == f"sha256:{confirmed.sha256}":
            raise ImageCurrent(f"version {version} is what this node starts already")
        if name != confirmed.name:
            raise ImageOther(f"the node has the image {confirmed.name}, and this one is {name}")
        if version <= confirmed.version:
            raise ImageOlder(f"the node has version {confirmed.version}, and this one is {version}")
        failed = record.phase is Phase.FAILED and record.manifest == request.manifest
        if failed and request.attempt <= record.attempt:
            raise ImageFailed(f"version {version} was tried on this node, and the node fell back")

    def _check_signature(self, kernel_image: bytes) -> None:
        # Loaded when it is needed: with it the program has three times the memory.
        from umec_images.update.secureboot import check_signature, read_database  # noqa: PLC0415

        database = read_database(self._node.variables.read("db", SECURITY_DATABASE))
        if database.unread:
            self._say(f"update: {UNREAD}: {database.unread} of the firmware's db count for nothing here")
        check_signature(kernel_image, database)

    def _confirm(self) -> None:
        with open_disk(self._node.disk, writing=True) as device:
            seen = confirm(device, self._node.running)
        self.on_trial = False
        (self._folder / CONFIRMED).touch()
        self._say(f"update: version {seen.confirmed.version} is confirmed")
        self._tell(seen)

    def _leave(self, why: str) -> None:
        self._say(f"update: {why}: the trial ends, the machine restarts into the image before")
        with suppress(UmecError, OSError), open_disk(self._node.disk, writing=True) as device:
            leave(device, self._node.running, why)
        self._node.restart()

    def _tell(self, seen: Survey) -> None:
        write_status(self._folder / STATUS, describe(seen, self._node.running))


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep this machine's disk until it restarts; returns 1 where it has none of a node."""
    parser = argparse.ArgumentParser(prog="umec-update-keeper", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where it tells and listens")
    parser.add_argument("--standing", type=Path, required=True, help="what the agent says of verdict and certificate")
    parser.add_argument("--user", required=True, help="as whom the agent runs")
    parser.add_argument("--trial-seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    try:
        node = this_node()
    except (UpdateError, OSError) as error:
        told = error if isinstance(error, UpdateError) else DiskUnfit(str(error))
        write_status(given.folder / STATUS, describe_trouble(told))
        _say(f"update: {told.code}: {told.detail}")
        return 1
    user = pwd.getpwnam(given.user)
    keeper = Keeper(node, given.folder, given.standing, trial_seconds=given.trial_seconds, say=_say)
    keeper.settle()
    with _door(given.folder / SOCKET, user.pw_gid) as door:
        keeper.serve(door, (0, user.pw_uid))
    return 0


@contextmanager
def _door(path: Path, group: int) -> Iterator[socket.socket]:
    """Listen where root and this group may speak."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(path))
        os.chown(path, 0, group)
        path.chmod(0o660)
        door.listen(1)
        yield door


def _check_user(connection: socket.socket, users: Sequence[int]) -> None:
    sent = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(sent)
    if user not in users:
        raise UserOther(f"the user {user} updates no node")


def _check_sizes(seen: Survey, papers: Papers) -> None:
    """Refuse by the manifest alone what neither memory nor disk holds. Raises ImageOther, NoRoom."""
    sizes = {name: size for name, (_, size) in papers.files.items()}
    for name, most in ((APPROVAL, APPROVAL_AREA), (KERNEL, MAX_KERNEL)):
        if sizes.get(name, 0) > most:
            raise ImageOther(f"{name} has more than {most} bytes")
    check_room(seen, kernel=sizes[KERNEL], root=sizes[ROOT], approved=sizes.get(APPROVAL, 0) > 0)


def _part(line: Line, papers: Papers, name: str) -> bytes:
    """Ask for a part that is kept in memory: its size has been checked. Raises RequestInvalid."""
    _, size = papers.files[name]
    line.want(name, size)
    return b"".join(line.part(size))


def _say(line: str) -> None:
    sys.stdout.write(f"umec-node: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
