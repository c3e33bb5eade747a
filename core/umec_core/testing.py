"""A real PostgreSQL of its own for a test, that leaves nothing behind."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["temporary_postgresql"]

ACCOUNT: Final = "postgres"
"""PostgreSQL refuses to run as root; its Debian package makes this account."""


def _programs() -> Path:
    """Return the folder of the newest installed server; raises FileNotFoundError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: scripts/bootstrap does that")
    return found[-1]


@contextmanager
def temporary_postgresql(*, durable: bool = False) -> Iterator[str]:
    """Start a server in a temporary folder, on a unix socket only; yields the URL of its one database.

    A `durable` one waits for the disk at every COMMIT, as one in use does; a test has no use for that.
    """
    folder = Path(tempfile.mkdtemp(prefix="umec-pg-"))
    prefix = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    if prefix:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
    programs, data = _programs(), folder / "data"

    def tool(name: str, *arguments: str) -> None:
        subprocess.run([*prefix, programs / name, "-D", data, *arguments], check=True, capture_output=True, cwd=folder)

    sync = "on" if durable else "off"
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync={sync}"
    try:
        tool("initdb", "-U", "umec", "--auth=trust", "--no-sync", "-E", "UTF8")
        tool("pg_ctl", "-o", options, "-l", str(folder / "log"), "-w", "start")
        yield f"postgresql+asyncpg://umec@/postgres?host={folder}"
    finally:
        if (data / "postmaster.pid").exists():
            tool("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
