"""Node image folders on disk: `efivars/…`, `uki.efi`, and what the firmware is.

A built image has `firmware.json`, {"code": path, "sha256": hex, "version": text}: its boot is a real one. An image for
simulated boots has `firmware.bin` and `firmware.version`: its firmware is that file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from umec_attest.errors import ImageFolderInvalid
from umec_attest.predict.builds import FirmwareBuild, builds_for
from umec_attest.predict.command_line import check_measuring
from umec_attest.predict.initrd import initrd_files, is_measured
from umec_attest.predict.kernel_policy import KERNEL_POLICY, find_kernel_policy
from umec_attest.predict.measure import PredictedPcrs
from umec_attest.predict.model import NodeImage, predict_image
from umec_attest.predict.ovmf import RealImage, predict_real
from umec_attest.predict.runtime import predict_runtime
from umec_attest.predict.stub import read_uki
from umec_attest.reference.values import Wire, load_json, summary

__all__ = ["predict", "predict_started", "read_image", "starts_applications"]

MAX_FILE_SIZE: Final = 2 * 1024 * 1024 * 1024
"""A unified kernel image with a large initrd has some hundred megabytes."""
HOST: Final = "/etc/umec/host.json"
"""The settings of netd, where an image has it."""
_VARIABLES: Final = ("SecureBoot", "PK", "KEK", "db", "dbx")
_FIRMWARE: Final = "firmware.json"


class _Firmware(Wire):
    code: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    version: str


def predict(image_dir: Path, boards: Iterable[FirmwareBuild] = ()) -> PredictedPcrs:
    """Return the PCR values that a boot of this folder gives.

    `boards` are firmware builds beside those that are known here. Errors: `ImageFolderInvalid` if it cannot be said,
    `FirmwareUnknown`, `ReferenceInvalid` for two builds of one name.
    """
    if (image_dir / _FIRMWARE).exists():
        return predict_real(_read_built(image_dir, boards))
    return predict_image(read_image(image_dir))


def predict_started(image_dir: Path, root: Path) -> dict[str, Any]:
    """Return the runtime policy (JSON) of this folder: every file of its root file system, which lies below `root`.

    Where the kernel measures what its initrd starts, too, those files are of it. Where it is given a policy of its own,
    the list of what ran has to tell of that. Errors: `ImageFolderInvalid`, also where its command line has the kernel
    measure nothing, or that policy is not a known one.
    """
    runtime = predict_runtime(root)
    if find_kernel_policy(root):
        runtime["required"] = [KERNEL_POLICY]
    if (image_dir / _FIRMWARE).exists():
        sections = read_uki(_read(image_dir / "uki.efi")).sections
        command_line = sections[".cmdline"].decode("ascii")
        check_measuring(command_line)
        if is_measured(command_line):
            for path, digest in initrd_files(sections[".initrd"]).items():
                runtime["files"].setdefault(path, []).append(digest)
    return runtime


def starts_applications(root: Path) -> bool:
    """Tell whether a root file system is that of a host: its agent then keeps a log of what netd starts (PCR 15)."""
    return (root / HOST.removeprefix("/")).exists()


def read_image(image_dir: Path) -> NodeImage:
    """Read a folder for simulated boots; `ImageFolderInvalid` if a file is missing or too large."""
    try:
        version = _read(image_dir / "firmware.version").decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ImageFolderInvalid("firmware.version is not text") from None
    return NodeImage(
        firmware=_read(image_dir / "firmware.bin"),
        firmware_version=version,
        variables=_read_variables(image_dir),
        uki=_read(image_dir / "uki.efi"),
    )


def _read_built(image_dir: Path, boards: Iterable[FirmwareBuild]) -> RealImage:
    try:
        firmware = _Firmware.model_validate(load_json(_read(image_dir / _FIRMWARE)))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ImageFolderInvalid(f"{_FIRMWARE} says of no firmware what it is: {summary(error)}") from None
    return RealImage(
        variables=_read_variables(image_dir),
        uki=_read(image_dir / "uki.efi"),
        models=builds_for(firmware.sha256, boards),
    )


def _read_variables(image_dir: Path) -> dict[str, bytes]:
    return {name: _read(image_dir / "efivars" / name) for name in _VARIABLES}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            raise ImageFolderInvalid(f"{path.name} is larger than {MAX_FILE_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ImageFolderInvalid(f"{path.name} cannot be read: {error.strerror}") from None
