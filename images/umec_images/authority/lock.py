"""One process at a time holds an authority's state directory: the service that runs, or a rotation of its keys."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from umec_images.authority.errors import AuthorityInUse

__all__ = ["StateLock"]

LOCK: Final = "lock"


class StateLock:
    """Holds a state directory from `take` until `release`, or until the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        """Only `take` calls this."""
        self._descriptor = descriptor

    @classmethod
    def take(cls, state: Path) -> "StateLock":
        """Hold a state directory, which is made where there is none; raises AuthorityInUse."""
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AuthorityInUse(
                f"another process holds {state}", advice="Stop the site, or let the rotation of its keys end."
            ) from error
        return cls(descriptor)

    def release(self) -> None:
        """Let others hold it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
