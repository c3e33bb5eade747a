"""nftables in process: libnftables through ctypes, JSON made of typed values in, one atomic batch a call.

The netlink socket belongs to the network namespace in which `Nftables` is made. Any thread may call, one at a time.
"""

import ctypes
import json
from collections.abc import Sequence
from typing import Any, Final, Self

from umec_platform.netd.errors import NftFailed

__all__ = ["Command", "Nftables"]

Command = dict[str, Any]
"""One object of libnftables-json(5), such as `{"add": {"table": {"family": "inet", "name": "umec"}}}`."""

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_JSON: Final = 1 << 4
"""NFT_CTX_OUTPUT_JSON of nftables/libnftables.h: it makes the library read JSON, too."""


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NftFailed(f"{_LIBRARY} is not here: {error}", advice="install the package libnftables1") from error
    context = ctypes.c_void_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [context]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [context]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [context]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
    return library


class Nftables:
    """A context of libnftables, bound to the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._library = _load()
        self._context: int | None = self._library.nft_ctx_new(0)
        if self._context is None:
            raise NftFailed("libnftables gives no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)

    def run(self, commands: Sequence[Command]) -> list[Command]:
        """Apply all commands or none, and return what `list` commands among them say; raises `NftFailed`."""
        if self._context is None:
            raise NftFailed("the context is closed")
        text = json.dumps({"nftables": list(commands)}, allow_nan=False).encode()
        failed = self._library.nft_run_cmd_from_buffer(self._context, text)
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftFailed(f"nftables refused a batch of {len(commands)}: {_first_line(error)}")
        if not output.strip():
            return []
        answer: list[Command] = json.loads(output)["nftables"]
        return answer

    def close(self) -> None:
        """Free the context."""
        context, self._context = self._context, None
        if context is not None:
            self._library.nft_ctx_free(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_line(error: bytes) -> str:
    lines = error.decode(errors="replace").strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
