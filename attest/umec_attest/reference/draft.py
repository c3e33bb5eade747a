"""Drafts: what a reference set shall say, before anybody signs it. They count for nothing.

    {"image_sha256": hex, "pcrs": …, "ignored": …, "models": …, "runtime": …, "starts": …, "owner": …,
     "stages": …}

All but `pcrs` may be left out; each is as in the predicate of a reference set. `umec nodeimage predict --draft`
and `umec nodeimage import-corim` write drafts; people complete them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, ValidationError

from umec_attest.errors import ReferenceInvalid
from umec_attest.ima import RuntimePolicy, parse_runtime_policy
from umec_attest.reference.models import FirmwareModel, WireModels, parse_models
from umec_attest.reference.owner import WireOwner, parse_owner
from umec_attest.reference.stages import Stages, WireStages, parse_stages
from umec_attest.reference.values import (
    AllowedValues,
    Wire,
    WireValues,
    load_json,
    parse_index,
    parse_values,
    render_values,
    summary,
)
from umec_attest.sealed.owners import OwnerKey

__all__ = ["ReferenceDraft", "parse_draft", "render_draft"]


class _Draft(Wire):
    image_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    pcrs: WireValues
    ignored: dict[str, str] = Field(default_factory=dict)
    models: WireModels = Field(default_factory=dict)
    runtime: dict[str, Any] | None = None
    starts: bool = False
    owner: WireOwner | None = None
    stages: WireStages = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReferenceDraft:
    """A draft that `sign_reference_set` can take, which checks what the members say together."""

    image_sha256: str | None
    pcrs: AllowedValues
    ignored: Mapping[int, str]
    models: Mapping[str, FirmwareModel]
    runtime: RuntimePolicy | None
    starts: bool = False
    owner: OwnerKey | None = None
    stages: Stages = field(default_factory=lambda: MappingProxyType({}))


def parse_draft(data: bytes) -> ReferenceDraft:
    """Return a draft; raises `ReferenceInvalid`, or `ReferenceEmpty` where it expects nothing."""
    try:
        wire = _Draft.model_validate(load_json(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ReferenceInvalid(f"no draft of a reference set: {summary(error)}") from None
    pcrs = parse_values(wire.pcrs)
    return ReferenceDraft(
        image_sha256=wire.image_sha256,
        pcrs=pcrs,
        ignored=MappingProxyType({parse_index(pcr): reason for pcr, reason in wire.ignored.items()}),
        models=parse_models(wire.models),
        runtime=None if wire.runtime is None else parse_runtime_policy(wire.runtime),
        starts=wire.starts,
        owner=parse_owner(wire.owner),
        stages=parse_stages(wire.stages, pcrs),
    )


def render_draft(
    values: AllowedValues, models: Mapping[str, AllowedValues], image_sha256: str | None
) -> dict[str, Any]:
    """Return a draft as JSON, for people to complete: it may say less than `parse_draft` demands."""
    draft: dict[str, Any] = {"pcrs": render_values(values)}
    if models:
        draft["models"] = {name: {"pcrs": render_values(model)} for name, model in sorted(models.items())}
    return draft if image_sha256 is None else {"image_sha256": image_sha256} | draft
