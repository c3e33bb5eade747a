"""A software TPM 2.0 (swtpm) as a process of its own, manufactured with an endorsement key certificate.

It listens on UNIX sockets in a private directory, so any number of them run beside each other, and stopping it removes
everything it made.
"""

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from umec_attest.testing.authority import EndorsementAuthority
from umec_attest.testing.errors import HarnessFailed

__all__ = ["SoftwareTpm", "power_cycle"]

SETUP_SECONDS: Final = 60
"""Making a TPM takes 0.7 s; a loaded machine gets time."""
START_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.005
REPLY_BYTES: Final = 4096

CMD_INIT: Final = 0x02
"""Control channel of swtpm (tpm_ioctl.h): PTM_INIT, which is what the power button does to a TPM."""
TCTI_PREFIX: Final = "swtpm:path="
TPM2_STARTUP_CLEAR: Final = bytes.fromhex("80010000000c000001440000")
TPM2_SHUTDOWN_CLEAR: Final = bytes.fromhex("80010000000c000001450000")
TPM2_SHUTDOWN_STATE: Final = bytes.fromhex("80010000000c000001450001")


class SoftwareTpm:
    """A manufactured software TPM: a context manager that starts it and leaves nothing behind.

    `directory` keeps the state of a TPM that shall outlive this object; without it, everything lies in a private
    temporary directory that goes away at the end. `authority` lets several TPMs have certificates of one issuer.
    The process dies with the thread that started it, so that a killed test leaves nothing running.
    """

    def __init__(self, directory: Path | None = None, *, authority: EndorsementAuthority | None = None) -> None:
        self._temporary = directory is None
        self._directory = directory
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None
        # A UNIX socket's path has at most 107 bytes: the sockets never lie in a directory named by somebody else.
        self._sockets: Path | None = None

    @property
    def tcti(self) -> str:
        """The connection string for tpm2-tss: `swtpm:path=…`."""
        return f"{TCTI_PREFIX}{self._socket_directory / 'tpm'}"

    @property
    def authority(self) -> EndorsementAuthority:
        """Who issued the endorsement key certificate."""
        if self._authority is None:
            raise HarnessFailed("the software TPM was never started")
        return self._authority

    @property
    def pid(self) -> int | None:
        """The process while it runs."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.discard()

    def start(self) -> None:
        """Manufacture the TPM at the first call, then switch it on. Raises HarnessFailed."""
        if self._process is not None:
            raise HarnessFailed("the software TPM already runs")
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="umec-tpm-"))
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="umec-tpm-"))
        self._manufacture(self._directory)
        self._run(self._directory / "state", self._sockets)

    def stop(self) -> None:
        """Switch it off in good order (TPM2_Shutdown first); its state stays."""
        if self._process is None:
            return
        if self._process.poll() is None:
            _command(self._socket_directory / "tpm", TPM2_SHUTDOWN_CLEAR)
        self.kill()

    def kill(self) -> None:
        """Take its power away without a word; its state stays. Calling it twice is harmless."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def power_cycle(self, *, orderly: bool = True) -> None:
        """Switch it off and on while its sockets stay: PCRs are zero again and resetCount has grown."""
        power_cycle(self.tcti, orderly=orderly)

    def hibernate(self) -> None:
        """Save its state, and switch it off and on: PCRs are zero again, restartCount has grown, resetCount has not."""
        _command(self._socket_directory / "tpm", TPM2_SHUTDOWN_STATE)
        self.power_cycle(orderly=False)

    def discard(self) -> None:
        """Remove the sockets, and the state if it is temporary. Stop it first."""
        self.kill()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    @property
    def _socket_directory(self) -> Path:
        if self._sockets is None:
            raise HarnessFailed("the software TPM does not run")
        return self._sockets

    def _manufacture(self, directory: Path) -> None:
        if self._authority is None:
            self._authority = EndorsementAuthority.load_or_create(directory / "authority")
        state = directory / "state"
        if state.exists():
            return
        state.mkdir(parents=True, mode=0o700)
        log = directory / "setup.log"
        arguments = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--createek", "--create-ek-cert"]
        arguments += ["--pcr-banks", "sha256", "--config", str(self._authority.setup_config), "--logfile", str(log)]
        try:
            done = subprocess.run(arguments, capture_output=True, timeout=SETUP_SECONDS, check=False)
        except FileNotFoundError as error:
            raise HarnessFailed("swtpm_setup is not installed", advice="apt-get install swtpm swtpm-tools") from error
        if done.returncode != 0:
            shutil.rmtree(state)
            said = log.read_text() if log.exists() else done.stderr.decode(errors="replace")
            raise HarnessFailed(f"swtpm_setup ended with {done.returncode}: {said.strip()}")

    def _run(self, state: Path, sockets: Path) -> None:
        for name in ("tpm", "tpm.ctrl"):
            (sockets / name).unlink(missing_ok=True)
        arguments = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"]
        arguments += ["--server", f"type=unixio,path={sockets / 'tpm'}"]
        arguments += ["--ctrl", f"type=unixio,path={sockets / 'tpm.ctrl'}"]
        arguments += ["--flags", "not-need-init,startup-clear", "--log", f"file={sockets / 'log'},level=1"]
        # It goes when we go: swtpm has no option for it, and a test may be killed.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(sockets)

    def _wait(self, sockets: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with _connected(sockets / "tpm"):
                    return
            except OSError:
                time.sleep(POLL_SECONDS)
        self.kill()
        log = sockets / "log"
        raise HarnessFailed(f"swtpm did not start: {log.read_text() if log.exists() else 'it said nothing'}")


def power_cycle(tcti: str, *, orderly: bool = True) -> None:
    """Switch a software TPM off and on that listens at `swtpm:path=…` with its control socket beside it.

    `orderly` says TPM2_Shutdown first, as an operating system does. Raises HarnessFailed.
    """
    path = Path(tcti.removeprefix(TCTI_PREFIX))
    if not tcti.startswith(TCTI_PREFIX):
        raise HarnessFailed(f"only a software TPM ({TCTI_PREFIX}…) can be switched off and on from here, not {tcti!r}")
    if orderly:
        _command(path, TPM2_SHUTDOWN_CLEAR)
    answer = _asked(path.with_name(f"{path.name}.ctrl"), struct.pack(">II", CMD_INIT, 0))
    if answer[:4] != bytes(4):
        raise HarnessFailed(f"the control channel of the software TPM answered {answer.hex()}")
    _command(path, TPM2_STARTUP_CLEAR)


def _command(path: Path, command: bytes) -> None:
    answer = _asked(path, command)
    if len(answer) < 10 or answer[6:10] != bytes(4):
        raise HarnessFailed(f"the software TPM answered {answer.hex()} to {command.hex()}")


def _asked(path: Path, request: bytes) -> bytes:
    try:
        with _connected(path) as connection:
            connection.sendall(request)
            return connection.recv(REPLY_BYTES)
    except OSError as error:
        raise HarnessFailed(f"the software TPM at {path} does not answer: {error}") from error


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(START_SECONDS)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        raise
    return connection
