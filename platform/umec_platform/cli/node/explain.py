"""Why a node stands as it does, for a reader: what was expected, found and decided, and what to do. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from umec_attest.findings import FINDINGS, Tier

__all__ = ["duration", "explanation", "next_steps", "summary"]

INDENT: Final = " " * 14

REBOOT: Final = "boot it into the image of its reference set: a good round of a new boot brings it back"

STEPS: Final[dict[str, tuple[str, ...]]] = {
    "pending": ("wait for its first good round; on the node: umec node run, or systemctl status umec-agent",),
    "trusted": (),
    "degraded": ("what runs goes on; nothing new starts there until a round is good",),
    "lapsed": (
        "see whether the node has power and reaches the site; on it: systemctl status umec-agent",
        "it comes back by itself with its first good round",
    ),
    "untrusted": (REBOOT, "umec node quarantine {node} --reason WHY, if nobody can say why"),
    "quarantined": ("umec node readmit {node} --reason WHY, then it has to prove itself again",),
    "revoked": ("umec node ticket {node} …, and umec node enroll --replace on it: nothing else brings it back",),
}
"""What to do about each standing, after what its findings ask for."""


def next_steps(node: Mapping[str, Any]) -> list[str]:
    """Return what an operator does next about a node, the most useful first; nothing for one that stands well."""
    standing, last = node["standing"], node.get("last_round") or {}
    steps = [step.format(node=node["node"]) for step in STEPS[standing]]
    if standing == "pending" and not node["approved"]:
        return [f"umec node approve {node['node']} --tenant TENANT --image IMAGE, if this TPM is yours"]
    if standing == "untrusted" and last.get("verdict") == "affirming":
        return [f"its evidence is good again, of the same boot: {REBOOT}"]
    if standing in {"degraded", "untrusted"}:
        looked = f"look at the box; if it is as it was: umec node clear-reset {node['node']} --reason WHY"
        boxes = [looked] if node["reset_unannounced"] else []
        return [*dict.fromkeys(_advice(last.get("findings", ()))), *boxes, *steps]
    return steps


def _advice(findings: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What to do about the findings that count; the detail of one that is not in the table says how."""
    for finding in findings:
        known = FINDINGS.get(finding["id"])
        if known is not None and known.tier > Tier.AFFIRMING:
            yield known.advice


def summary(node: Mapping[str, Any], now: datetime) -> str:
    """Return what a node is worth, since when and why, and what to do."""
    lines = [
        _line("node", f"{node['node']}, tenant {node['tenant'] or '-'}, image {node['image'] or '-'}{_class(node)}"),
        _line("standing", f"{node['standing']} (generation {node['generation']}) {_since(node['changed_at'], now)}"),
        _line("why", node["reason"]),
        *_bound_lines(node),
        *_next_lines(node),
    ]
    return "\n".join(lines)


def _class(node: Mapping[str, Any]) -> str:
    return "" if node["class"] == "standard" else f", {node['class']}"


def _bound_lines(node: Mapping[str, Any]) -> Iterator[str]:
    if node["node_key_bound"]:
        yield _line("node key", "bound: it signs in states alone that the owner of its image approved")


def explanation(node: Mapping[str, Any], now: datetime) -> str:
    """Return the whole explanation of a node."""
    lines = [*summary(node, now).splitlines()]
    place = next((at for at, line in enumerate(lines) if line.startswith("next")), len(lines))
    lines[place:place] = [_line("decided by", _deciders(node)), *_round_lines(node, now), *_event_lines(node)]
    lines += [
        _line("before" if at == 0 else "", f"{each['changed_at']} {each['standing']} (generation {each['generation']})")
        for at, each in enumerate(node["history"])
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time for a reader: its two largest units."""
    rest, parts = max(int(seconds), 0), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _deciders(node: Mapping[str, Any]) -> str:
    last = node["last_round"]
    if node["standing"] in {"quarantined", "revoked"}:
        return "an operator; the audit log says who: umec audit fetch attest"
    if node["standing"] == "lapsed":
        return "silence: no evidence came in time"
    if last is None:
        return "nobody yet: no evidence was judged"
    return f"{', '.join(last['policies']) or 'no policy that permits'}, of the policy set {last['policy_sha256']}"


def _round_lines(node: Mapping[str, Any], now: datetime) -> Iterator[str]:
    last = node["last_round"]
    if last is None:
        return
    yield _line(
        "last round", f"number {node['rounds']}, {last['verdict']}, at {last['at']} ({_age(last['at'], now)} ago)"
    )
    reference = last["reference"]
    until = f", which counts until {reference['until']}: a newer one is there" if "until" in reference else ""
    named = f"reference set {node['image']} version {reference['version']} ({reference['sha256']}){until}"
    yield _line("judged by", named)
    yield _line("evidence", last["evidence_sha256"])
    for finding in last["findings"]:
        yield _line("finding", f"{finding['id']}: {finding['detail']}")
        for member in ("expected", "found"):
            if member in finding:
                yield f"{INDENT}{member:<9} {finding[member]}"


def _event_lines(node: Mapping[str, Any]) -> Iterator[str]:
    events: Sequence[Mapping[str, Any]] = node.get("events", ())
    for event in events:
        mark = {None: "", True: "as on a trusted node", False: "NOT AS ON A TRUSTED NODE"}[event["as_expected"]]
        yield _line("event", f"PCR {event['pcr']:>2} {event['type']} {mark}".rstrip())
        yield f"{INDENT}digest    {event['digest']}"
        if event["data"]:
            yield f"{INDENT}data      {event['data']}"


def _next_lines(node: Mapping[str, Any]) -> Iterator[str]:
    for at, step in enumerate(next_steps(node)):
        yield _line("next" if at == 0 else "", step)


def _since(text: str, now: datetime) -> str:
    return f"since {text} ({_age(text, now)})"


def _age(text: str, now: datetime) -> str:
    then = datetime.fromisoformat(text)
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return duration((now - then).total_seconds())


def _line(name: str, text: str) -> str:
    return f"{name:<12}  {text}"
