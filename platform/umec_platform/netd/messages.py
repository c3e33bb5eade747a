"""What netd understands: one JSON object a line in, one out. Unknown fields, wrong types and odd texts are refused.

Importable without privileges and without server packages. A request carries `id` (echoed) and `op`; see `Request`.
"""

from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

from umec_platform.netd.names import (
    Address,
    Argument,
    BlobDirectory,
    Cidr,
    Digest,
    DnsName,
    Identifier,
    Repository,
    RequestId,
    Secret,
    SecretName,
    Token,
    VariableName,
    VariableValue,
)

__all__ = [
    "MAX_LINE",
    "MAX_LOG_LINES",
    "Action",
    "DnsDelete",
    "DnsPut",
    "DnsRule",
    "InstanceLog",
    "InstanceSpec",
    "InstanceStart",
    "InstanceStop",
    "Limits",
    "PortRange",
    "Refusal",
    "Reply",
    "Request",
    "Standing",
    "Status",
    "Sync",
    "Tenant",
    "TenantPut",
    "TrafficDelete",
    "TrafficFilter",
    "TrafficPut",
    "TrafficRule",
    "parse_request",
]

MAX_LINE: Final = 16 * 1024 * 1024
"""Octets of one request: a full synchronisation of some 10,000 rules is about 4 MB."""

MAX_RULES: Final = 20_000
"""Rules of one kind in a synchronisation: twice what the budgets are measured with."""

MAX_LOG_LINES: Final = 1000
"""Lines of an instance's log in one answer, which is bounded in octets as well (`logs.MAX_TEXT`)."""

Action = Literal["DROP", "FORWARD", "PASSTHROUGH", "DUPLICATE"]
Port = Annotated[int, Field(ge=0, le=65535)]
PortRange = Annotated[list[Port], Field(min_length=2, max_length=2)]
"""First and last port, both included."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class TrafficFilter(_Message):
    """Packets that a rule is about: an empty list stands for every value; ports only with tcp or udp."""

    src: Annotated[list[Cidr], Field(max_length=16)] = []
    dst: Annotated[list[Cidr], Field(max_length=16)] = []
    src_ports: Annotated[list[PortRange], Field(max_length=16)] = []
    dst_ports: Annotated[list[PortRange], Field(max_length=16)] = []
    protocol: Literal["tcp", "udp", "icmp", "any"] = "any"

    @model_validator(mode="after")
    def _ports(self) -> Self:
        ranges = self.src_ports + self.dst_ports
        if ranges and self.protocol not in {"tcp", "udp"}:
            raise ValueError("ports are meaningful for tcp and udp only")
        if any(first > last for first, last in ranges):
            raise ValueError("a port range ends before it begins")
        return self


class TrafficRule(_Message):
    """One rule of a tenant's instance. Priority 0 is the highest. `to` goes with FORWARD and DUPLICATE only."""

    id: Identifier
    tenant: Identifier
    instance: Identifier
    priority: Annotated[int, Field(ge=0, le=255)]
    filters: Annotated[list[TrafficFilter], Field(min_length=1, max_length=16)]
    action: Action
    to: Address | None = None

    @model_validator(mode="after")
    def _target(self) -> Self:
        if (self.to is not None) != (self.action in {"FORWARD", "DUPLICATE"}):
            raise ValueError("`to` belongs to FORWARD and DUPLICATE, and only to them")
        return self


class DnsRule(_Message):
    """A name that answers with an address of its tenant, for at most a minute in caches."""

    id: Identifier
    tenant: Identifier
    instance: Identifier
    name: DnsName
    kind: Literal["A", "AAAA"]
    address: Address
    ttl: Annotated[int, Field(ge=0, le=60)] = 30

    @model_validator(mode="after")
    def _family(self) -> Self:
        if ip_address(self.address).version != (4 if self.kind == "A" else 6):
            raise ValueError("the address is not of the record's family")
        return self


class Limits(_Message):
    """What one instance may use of its host."""

    memory_mib: Annotated[int, Field(ge=8, le=65536)] = 256
    pids: Annotated[int, Field(ge=1, le=4096)] = 128


class InstanceSpec(_Message):
    """An instance to start: the signed decision says what may run; the image's files lie in `blobs`.

    `args` replaces the image's command (entry point included), `env` adds to its environment. Each of `secrets` becomes
    a file under /run/umec that only the instance's uid can read.
    """

    instance: Identifier
    tenant: Identifier
    decision: Token
    repository: Repository
    digest: Digest
    blobs: BlobDirectory
    args: Annotated[list[Argument], Field(min_length=1, max_length=256)] | None = None
    env: Annotated[dict[VariableName, VariableValue], Field(max_length=128)] = {}
    secrets: Annotated[dict[SecretName, Secret], Field(max_length=32)] = {}
    limits: Limits = Limits()


class Tenant(_Message):
    """A tenant and, if it must be a certain one, its IPv4 subnet (a /24 of the pool)."""

    tenant: Identifier
    subnet: Cidr | None = None


class _Request(_Message):
    id: RequestId


class Status(_Request):
    """Ask for the present state."""

    op: Literal["status"] = "status"


class Standing(_Request):
    """Renew the lease, or let it fall, by a signed statement about this node."""

    op: Literal["standing"] = "standing"
    statement: Token


class TenantPut(_Request):
    """Make a tenant's bridge; the same again changes nothing. Result: `{tenant, subnet, gateway}`."""

    op: Literal["tenant.put"] = "tenant.put"
    tenant: Identifier
    subnet: Cidr | None = None


class TrafficPut(_Request):
    """Add or replace a traffic rule."""

    op: Literal["traffic.put"] = "traffic.put"
    rule: TrafficRule


class TrafficDelete(_Request):
    """Remove a traffic rule; removing what is not there succeeds."""

    op: Literal["traffic.delete"] = "traffic.delete"
    tenant: Identifier
    rule: Identifier


class DnsPut(_Request):
    """Add or replace a DNS rule."""

    op: Literal["dns.put"] = "dns.put"
    rule: DnsRule


class DnsDelete(_Request):
    """Remove a DNS rule; removing what is not there succeeds."""

    op: Literal["dns.delete"] = "dns.delete"
    tenant: Identifier
    rule: Identifier


class InstanceStart(_Request):
    """Start an instance. Result: `{instance, address, pid}`."""

    op: Literal["instance.start"] = "instance.start"
    spec: InstanceSpec


class InstanceStop(_Request):
    """Stop and remove an instance with its rules and names; stopping what is not there succeeds."""

    op: Literal["instance.stop"] = "instance.stop"
    instance: Identifier


class InstanceLog(_Request):
    """Ask for the last lines that an instance wrote in all its runs here. Result: `{instance, text}`; bounded."""

    op: Literal["instance.log"] = "instance.log"
    instance: Identifier
    lines: Annotated[int, Field(ge=1, le=MAX_LOG_LINES)] = 100


class Sync(_Request):
    """The whole desired state: what is not named goes. Instances are left alone unless `instances` lists the wanted.

    Result: `{traffic, dns, refused: [{kind, tenant, id, code, detail}], in_force}`: a refused rule does not stop
    the others, and is not there afterwards.
    """

    op: Literal["sync"] = "sync"
    tenants: Annotated[list[Tenant], Field(max_length=256)]
    traffic: Annotated[list[TrafficRule], Field(max_length=MAX_RULES)]
    dns: Annotated[list[DnsRule], Field(max_length=MAX_RULES)]
    instances: Annotated[list[Identifier], Field(max_length=MAX_RULES)] | None = None


Request = Annotated[
    Status
    | Standing
    | TenantPut
    | TrafficPut
    | TrafficDelete
    | DnsPut
    | DnsDelete
    | InstanceStart
    | InstanceStop
    | InstanceLog
    | Sync,
    Field(discriminator="op"),
]
"""Every request that there is."""


class Reply(_Message):
    """The answer to one request: exactly one of `result` and `code` is set."""

    id: str
    ok: bool
    result: dict[str, JsonValue] | None = None
    code: str | None = None
    kind: str | None = None
    detail: str | None = None


class Refusal(_Message):
    """A rule of a synchronisation that was not taken; `sort` is that of the refusal, as in `Reply.kind`."""

    kind: Literal["traffic", "dns"]
    sort: str
    tenant: Identifier
    id: Identifier
    code: str
    detail: str


_REQUEST: Final[TypeAdapter[Any]] = TypeAdapter(Request, config=ConfigDict(hide_input_in_errors=True))


def parse_request(line: bytes) -> Any:  # noqa: ANN401 - a Request; the union has no name that mypy accepts here
    """Return the request of one line of JSON, or raise pydantic's ValidationError."""
    return _REQUEST.validate_json(line)
