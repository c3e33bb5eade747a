"""The fall: somebody has a token of an application on a node, and the node falls."""

from dataclasses import dataclass
from typing import Final

from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.timeline import Broken

__all__ = ["ATTACKS", "Fallen"]

SAME_SECOND: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Fallen:
    """What a token that had worked met when its node fell: the code of the refusal, and when (ms after the verdict)."""

    code: str | None
    ms: float


def in_the_same_second(fallen: Fallen) -> str | None:
    """Go on using a token that is good for another minute."""
    if fallen.ms > SAME_SECOND:
        raise Broken(f"the token was refused only {fallen.ms:.0f} ms after the verdict", fallen.code)
    return fallen.code


ATTACKS: Final[tuple[Attack[Fallen], ...]] = (
    Attack("token-after-the-fall", "standing-fallen", "a token of an application on the node", in_the_same_second),
)
