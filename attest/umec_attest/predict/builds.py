"""Firmware builds by name: the PCRs that the firmware alone decides, measured once for each build.

    {"builds": [{"name": "OVMF 2022.11 (q35 1 GiB)", "code_sha256": hex or null, "pcrs": {"0": hex, "2": …}}, …]}

They cannot be computed from the firmware's file: OVMF unpacks its first volume into memory, runs there, and only then
measures it with all that its modules have noted in it about the machine (memory, processors, sleep states). So the
same build gives one value for each shape of a virtual machine. `code_sha256` says of which file a build is; a build of
a board, whose firmware no image brings along, has none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from umec_attest.errors import FirmwareUnknown, ReferenceInvalid
from umec_attest.reference.models import MODEL_NAME
from umec_attest.reference.values import Wire, load_json, summary

__all__ = ["FIRMWARE_PCRS", "FirmwareBuild", "builds_for", "known_builds", "parse_builds", "render_builds"]

FIRMWARE_PCRS: Final = (0, 2, 3, 6)
"""Firmware, option ROMs with their configuration, and what the maker of the board measures."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Build(Wire):
    name: Annotated[str, Field(pattern=MODEL_NAME)]
    code_sha256: _Digest | None
    pcrs: dict[str, _Digest]


class _Builds(Wire):
    builds: list[_Build]


@dataclass(frozen=True, slots=True)
class FirmwareBuild:
    """A build of which the values are known. `code_sha256` (hex) is None for the firmware of a board."""

    name: str
    code_sha256: str | None
    pcrs: dict[int, bytes]


def known_builds() -> tuple[FirmwareBuild, ...]:
    """Return the builds that come with this package: Debian's OVMF, in the machines that node images are tried in."""
    return parse_builds(files(__package__).joinpath("builds.json").read_bytes())


def parse_builds(data: bytes) -> tuple[FirmwareBuild, ...]:
    """Return the builds of a file; raises `ReferenceInvalid`, for a build too that does not say all that others do."""
    try:
        wire = _Builds.model_validate(load_json(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ReferenceInvalid(f"no list of firmware builds: {summary(error)}") from None
    wanted = {str(pcr) for pcr in FIRMWARE_PCRS}
    for build in wire.builds:
        if build.pcrs.keys() != wanted:
            raise ReferenceInvalid(f"the firmware build {build.name} does not have the PCRs {FIRMWARE_PCRS}")
    return tuple(
        FirmwareBuild(build.name, build.code_sha256, {int(pcr): bytes.fromhex(x) for pcr, x in build.pcrs.items()})
        for build in wire.builds
    )


def render_builds(builds: Iterable[FirmwareBuild]) -> dict[str, Any]:
    """Return builds as `parse_builds` reads them."""
    return {
        "builds": [
            {
                "name": build.name,
                "code_sha256": build.code_sha256,
                "pcrs": {str(pcr): value.hex() for pcr, value in sorted(build.pcrs.items())},
            }
            for build in builds
        ]
    }


def builds_for(code_sha256: str, boards: Iterable[FirmwareBuild]) -> dict[str, dict[int, bytes]]:
    """Return name -> PCRs of every build that may boot an image: those of its own firmware file, and these boards.

    Errors: `FirmwareUnknown` where there is none; `ReferenceInvalid` where two have one name.
    """
    found: dict[str, dict[int, bytes]] = {}
    own = (build for build in known_builds() if build.code_sha256 == code_sha256)
    for build in (*own, *(board for board in boards if board.code_sha256 in {None, code_sha256})):
        if found.setdefault(build.name, build.pcrs) != build.pcrs:
            raise ReferenceInvalid(f"there are two firmware builds with the name {build.name}")
    if not found:
        raise FirmwareUnknown(
            f"no build of the firmware {code_sha256} is known",
            advice="measure it once: boot a machine with it, and umec nodeimage firmware BOOTLOG --name NAME",
        )
    return found
