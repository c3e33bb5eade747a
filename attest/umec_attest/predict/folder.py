"""Node image folders on disk: `firmware.bin`, `firmware.version`, `efivars/…`, `uki.efi`."""

from pathlib import Path
from typing import Final

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.model import NodeImage, PredictedPcrs, predict_image

__all__ = ["predict", "read_image"]

MAX_FILE_SIZE: Final = 2 * 1024 * 1024 * 1024
"""A unified kernel image with a large initrd has some hundred megabytes."""
_VARIABLES: Final = ("SecureBoot", "PK", "KEK", "db", "dbx")


def predict(image_dir: Path) -> PredictedPcrs:
    """Return the PCR values that a boot of this folder gives; `ImageFolderInvalid` if it cannot be said."""
    return predict_image(read_image(image_dir))


def read_image(image_dir: Path) -> NodeImage:
    """Read a node image folder; `ImageFolderInvalid` if a file is missing or too large."""
    try:
        version = _read(image_dir / "firmware.version").decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ImageFolderInvalid("firmware.version is not text") from None
    return NodeImage(
        firmware=_read(image_dir / "firmware.bin"),
        firmware_version=version,
        variables={name: _read(image_dir / "efivars" / name) for name in _VARIABLES},
        uki=_read(image_dir / "uki.efi"),
    )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            raise ImageFolderInvalid(f"{path.name} is larger than {MAX_FILE_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ImageFolderInvalid(f"{path.name} cannot be read: {error.strerror}") from None
