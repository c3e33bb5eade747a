"""Named firmware builds: the PCR values that each gives, and the findings that are excused for it, with the reason.

A node image runs on boards with different firmware. Each build is a *model*: a name, the values of the PCRs that its
firmware decides, PCR 0 among them, and the quirks of that firmware. Which model a node is, its quoted values say:
nothing that it could claim. A value of one build beside that of another is no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field

from umec_attest.bootlog.quirks import EXCUSABLE
from umec_attest.errors import ReferenceInvalid
from umec_attest.reference.values import AllowedValues, Wire, WireValues, match_values, parse_values, render_values
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["MODEL_NAME", "FirmwareModel", "WireModels", "match_model", "parse_models", "render_models"]

MODEL_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,62}$"
MAX_MODELS: Final = 256
"""Builds of one image's boards; a large fleet has some dozens."""
_FIRMWARE_PCR: Final = 0
"""Holds the firmware itself: a model that does not name it would be whatever claims to be one."""


class WireModel(Wire):
    """A model in a predicate."""

    pcrs: WireValues
    excused: dict[str, Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=dict)


WireModels = Annotated[dict[Annotated[str, Field(pattern=MODEL_NAME)], WireModel], Field(max_length=MAX_MODELS)]


@dataclass(frozen=True, slots=True)
class FirmwareModel:
    """A firmware build: the values of the PCRs that it decides, and finding id -> why it is excused for this build."""

    pcrs: AllowedValues
    excused: Mapping[str, str]

    @property
    def shape(self) -> frozenset[tuple[HashAlgorithm, int]]:
        """The PCRs that it says something about, each with its bank."""
        return frozenset((algorithm, pcr) for algorithm, bank in self.pcrs.items() for pcr in bank)

    def matches(self, quoted: Mapping[HashAlgorithm, Mapping[int, bytes]]) -> bool:
        """Tell whether all its PCRs were quoted, each with one of its values."""
        return match_values(self.pcrs, quoted)


def match_model(models: Mapping[str, FirmwareModel], quoted: Mapping[HashAlgorithm, Mapping[int, bytes]]) -> str | None:
    """Return the name of the model that these quoted values are of, or None. No two models share all values."""
    return next((name for name, model in models.items() if model.matches(quoted)), None)


def parse_models(wire: Mapping[str, WireModel]) -> Mapping[str, FirmwareModel]:
    """Return the models of a predicate; raises `ReferenceInvalid`, `ReferenceEmpty`.

    All name the same PCRs, PCR 0 in each bank among them, so that each says everything about its firmware; no two can
    be matched by the same values; only known quirks of firmware can be excused.
    """
    models = {
        name: FirmwareModel(parse_values(model.pcrs), MappingProxyType(dict(model.excused)))
        for name, model in wire.items()
    }
    if len({model.shape for model in models.values()}) > 1:
        raise ReferenceInvalid("models name different PCRs: each has to say what all say")
    for name, model in models.items():
        if not all(_FIRMWARE_PCR in bank for bank in model.pcrs.values()):
            raise ReferenceInvalid(f"the model {name} does not say what its firmware is (PCR {_FIRMWARE_PCR})")
        unknown = sorted(model.excused.keys() - EXCUSABLE.keys())
        if unknown:
            raise ReferenceInvalid(f"the model {name} excuses what is no known quirk of a firmware: {unknown}")
    _check_apart(models)
    return MappingProxyType(models)


def render_models(models: Mapping[str, FirmwareModel]) -> dict[str, Any]:
    """Return models as `parse_models` reads them."""
    return {
        name: {"pcrs": render_values(model.pcrs), "excused": dict(sorted(model.excused.items()))}
        for name, model in sorted(models.items())
    }


def _check_apart(models: Mapping[str, FirmwareModel]) -> None:
    seen: list[tuple[str, FirmwareModel]] = []
    for name, model in models.items():
        for other, known in seen:
            if all(
                allowed & known.pcrs[algorithm][pcr]
                for algorithm, bank in model.pcrs.items()
                for pcr, allowed in bank.items()
            ):
                raise ReferenceInvalid(f"the models {other} and {name} cannot be told apart")
        seen.append((name, model))
