"""What has to become of a boot, by what was done to the node before, and in which way one did not become that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_images.machine.progress import End, Progress, Stage

__all__ = ["DOCUMENTED", "Documented", "faults"]


@dataclass(frozen=True, slots=True)
class Documented:
    """What has to become of a boot: what ends it (or nothing does), the stage that it reaches, and which PCRs tell."""

    end: End | None
    stage: Stage
    differ: frozenset[int] = frozenset()
    """PCRs that differ from those of the image that is expected on the node."""
    same: frozenset[int] = frozenset()


DOCUMENTED: Final[Mapping[str | None, Documented]] = MappingProxyType(
    {
        None: Documented(None, Stage.ROOT, same=frozenset({4, 7, 9, 11, 12})),
        "kernel": Documented(End.SIGNATURE, Stage.FIRMWARE),
        "cmdline": Documented(End.SIGNATURE, Stage.FIRMWARE),
        "initrd": Documented(End.SIGNATURE, Stage.FIRMWARE),
        "root": Documented(End.VERITY, Stage.KERNEL),
        "keys": Documented(None, Stage.ROOT, differ=frozenset({4, 7, 11})),
        "firmware-vars": Documented(None, Stage.ROOT, differ=frozenset({7}), same=frozenset({11})),
        "downgrade": Documented(None, Stage.ROOT, differ=frozenset({4, 11}), same=frozenset({7})),
    }
)
"""By what was done; None is the boot of an image that nobody touched."""


def faults(documented: Documented, progress: Progress, expected: Mapping[int, bytes]) -> list[str]:
    """Return in which way a boot was not as documented; `expected` are the image's own PCR values, by number."""
    return [*_faults_of_the_end(documented, progress), *_faults_of_the_values(documented, progress, expected)]


def _faults_of_the_end(documented: Documented, progress: Progress) -> Iterator[str]:
    if progress.end is not documented.end:
        wanted, found = (("nothing" if end is None else end.value) for end in (documented.end, progress.end))
        yield f"it was ended by {found}, and not by {wanted}"
    beyond = documented.end is None and progress.stage.place > documented.stage.place
    if progress.stage is not documented.stage and not beyond:
        yield f"it reached the stage {progress.stage.value}, and not {documented.stage.value}"


def _faults_of_the_values(documented: Documented, progress: Progress, expected: Mapping[int, bytes]) -> Iterator[str]:
    for number in sorted(documented.same | documented.differ):
        found = progress.pcrs.get(number)
        if found is None:
            yield f"it did not say what PCR {number} is"
        elif (found == expected[number]) is not (number in documented.same):
            yield f"PCR {number} {'differs from' if number in documented.same else 'is'} what the image promises"
