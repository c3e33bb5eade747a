"""What a program of an image says about itself: it is read, for nothing that was unpacked runs where it is built."""

import io
import re
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from umec_images.nodeimage.errors import ContentRefused

__all__ = ["applets", "needed"]

MAX_NEEDED: Final = 256
"""Libraries of one program or library."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_APPLETS: Final = re.compile(rb"\[\0\[\[\0((?:[a-z0-9][a-z0-9_.-]{0,30}\0){50,1000})\0")
"""BusyBox's table of names: sorted, so that its first two are these, and ended by an empty one."""


def needed(data: bytes) -> list[str]:
    """Return the libraries that a program or library needs itself (DT_NEEDED), in order. Raises ContentRefused."""
    try:
        segments = [each for each in ELFFile(io.BytesIO(data)).iter_segments() if isinstance(each, DynamicSegment)]
        names = [str(vars(tag)["needed"]) for segment in segments for tag in segment.iter_tags("DT_NEEDED")]
    except (
        ELFError,
        ConstructError,
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise ContentRefused(f"a program that the image needs is no ELF file: {type(error).__name__}") from error
    if len(names) > MAX_NEEDED or not all(_NAME.fullmatch(name) for name in names):
        raise ContentRefused("a program that the image needs asks for libraries that nothing is called")
    return names


def applets(data: bytes) -> list[str]:
    """Return the commands that a BusyBox has, sorted. Raises ContentRefused."""
    found = _APPLETS.search(data)
    if found is None:
        raise ContentRefused("BusyBox does not say which commands it has")
    return ["[", "[[", *found[1].decode("ascii").rstrip("\0").split("\0")]
