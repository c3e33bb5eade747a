"""What an attacker runs in a container once the application there is theirs: Python, and what the image has.

Reads one JSON object a line, {"do": NAME, ...}, and answers with one, {"code": …}: null if it succeeded, else what
refused it: the code that a server gave, or the kernel's word (ENOENT, EPERM, …). It runs in the container only.
"""

import contextlib
import ctypes
import errno
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["DEEDS", "main"]

PATIENCE_SECONDS = 1.0
"""What does not answer by then is out of reach."""

CLONE_NEWUSER = 0x10000000
PTRACE_ATTACH = 16
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
"""The number of this system call, which has no name in the C library, on a machine."""
CONFINES = ("CapBnd", "CapEff", "CapPrm", "NoNewPrivs", "Seccomp", "Uid")
libc = ctypes.CDLL(None, use_errno=True)
_app: Any = None
_session: Any = None
_me: dict[str, Any] = {}


def _load() -> None:
    """Become the application: its code, its key, its session."""
    global _app, _session, _me  # noqa: PLW0603 - one application
    if _app is None:
        sys.path.insert(0, "/app")
        _app = importlib.import_module("app")
        _me = json.loads(_app.CREDENTIAL.read_text())
        _session = _app.connect(_me)


def mp1(method: str, path: str, body: Any = None) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Call Mp1 with the instance's own token."""
    _load()
    return _send(method, _me["mp1"] + path, body)


def management(path: str) -> dict[str, Any]:
    """Call the management API with the instance's own token, which is for Mp1."""
    _load()
    return _send("GET", _me["issuer"] + path)


def token(resource: str, scope: str | None) -> dict[str, Any]:
    """Ask for a token for another API, or with another scope."""
    _load()
    try:
        _session.auth.client.client_credentials(resource=resource, **({} if scope is None else {"scope": scope}))
    except _app.requests.RequestException:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the library makes of the server's refusal
        return {"code": _of_oauth(error)}
    return {"code": None}


def tcp(places: list[tuple[str, int]]) -> dict[str, Any]:
    """Connect to all of these addresses and ports at once; return how each went."""
    with ThreadPoolExecutor(len(places)) as pool:
        return {"code": None, "codes": list(pool.map(lambda place: _tried(_connect, place)["code"], places))}


def _connect(place: tuple[str, int]) -> None:
    address, port = place
    socket.create_connection((address, port), timeout=PATIENCE_SECONDS).close()


def unix(path: str) -> None:
    """Connect to a unix socket; an abstract one begins with a zero octet."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def read(path: str) -> None:
    """Read a file, or list a folder."""
    found = Path(path)
    _ = list(found.iterdir()) if found.is_dir() else found.read_bytes()


def write(path: str) -> None:
    """Write a file."""
    Path(path).write_text("mine")


def raw_socket() -> None:
    """Send packets under any address."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()


def become_root() -> None:
    """Be root."""
    os.setuid(0)


def mount() -> None:
    """Mount a file system."""
    _call(libc.mount(b"proc", b"/tmp", b"proc", 0, None))


def new_user_namespace() -> None:
    """Be root somewhere else first."""
    _call(libc.unshare(CLONE_NEWUSER))


def device() -> None:
    """Make the host's disk."""
    os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))  # noqa: S108 - in the container


def trace() -> None:
    """Take over the first process."""
    _call(libc.ptrace(PTRACE_ATTACH, 1, None, None))


def load_module() -> None:
    """Load code into the kernel."""
    _call(libc.syscall(FINIT_MODULE[os.uname().machine], -1, b"", 0))


def confines() -> dict[str, Any]:
    """Tell what the kernel holds against this process, whatever it asks for."""
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {"code": None, "confines": {name: value.strip() for name, _, value in lines if name in CONFINES}}


def _send(method: str, url: str, body: Any = None) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    request = _session.prepare_request(_app.requests.Request(method, url, json=body))
    request.hooks["response"].clear()  # the library takes every refusal of a proof for the wish for a nonce
    return _said(_session.send(request, verify=_session.verify, timeout=10))


def _tried(deed: Callable[..., Any], *args: Any, **order: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Return what a deed says, or what refused it."""
    try:
        return deed(*args, **order) or {"code": None}
    except TimeoutError:
        return {"code": "ETIMEDOUT"}
    except OSError as error:
        return {"code": errno.errorcode.get(error.errno or 0, str(error))}


def _call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _said(answer: Any) -> dict[str, Any]:  # noqa: ANN401 - an answer of requests
    with contextlib.suppress(ValueError):
        body = answer.json()
        return {"code": None if answer.ok else body.get("code") or body.get("error"), "body": body}
    return {"code": None if answer.ok else f"http-{answer.status_code}"}


def _of_oauth(error: Exception) -> str:
    """Return the code in the body of a refusal of the token endpoint."""
    answer = getattr(error, "response", None)
    said = {} if answer is None else answer.json()
    return str(said.get("code") or said.get("error") or error)


DEEDS: dict[str, Callable[..., Any]] = {
    deed.__name__: deed
    for deed in (mp1, management, token, tcp, unix, read, write, raw_socket, become_root, mount, new_user_namespace)
} | {deed.__name__: deed for deed in (device, trace, load_module, confines)}


def main() -> None:
    """Do what is asked until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        said = _tried(DEEDS[order.pop("do")], **order)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
