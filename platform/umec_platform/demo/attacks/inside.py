"""From inside: an application was taken over, and the attacker runs in its container, with its key and its token."""

import json
import socket
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from umec_platform.applications.schemas import (
    AppReadyConfirmation,
    AppTerminationConfirmation,
    AppTerminationNotificationSubscription,
)
from umec_platform.demo.applications import ADDRESSES, Running
from umec_platform.demo.attacks import implant
from umec_platform.demo.attacks.fields import PAYLOADS, TRACE, texts
from umec_platform.demo.attacks.surroundings import ABSTRACT, PORT, Surroundings
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.attacks.traces import left_behind
from umec_platform.demo.run import MANAGEMENT, MP1, REGISTRY, Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import SITE_ADDRESS
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.services.schemas import SerAvailabilityNotificationSubscription, ServiceInput, ServiceLivenessUpdate

__all__ = ["ATTACKS", "Intruder"]

SUPPORT: Final = "/mec_app_support/v1/applications"
SERVICES: Final = "/mec_service_mgmt/v1"
CONFINED: Final[dict[str, Callable[[str], bool]]] = {
    "CapBnd": lambda value: int(value, 16) == 0,
    "CapEff": lambda value: int(value, 16) == 0,
    "CapPrm": lambda value: int(value, 16) == 0,
    "NoNewPrivs": lambda value: value == "1",
    "Seccomp": lambda value: value == "2",
    "Uid": lambda value: "0" not in value.split(),
}
"""What /proc/PID/status (proc_pid_status(5)) says of a process that is confined."""
NOT_THERE: Final = frozenset({"ENOENT"})
NO_SUCH_NAME: Final = frozenset({"ECONNREFUSED"})
SILENCE: Final = frozenset({"ETIMEDOUT"})
"""What is dropped. Something that answered, if only with a refusal, was reached."""
FORBIDDEN: Final = frozenset({"EPERM", "EACCES", "EROFS"})
OUT_OF_REACH: Final = "out-of-reach"
NOT_PERMITTED: Final = "not-permitted"


class Intruder:
    """Whoever runs code in the container of one instance; `neighbour` is an instance of another tenant."""

    def __init__(self, run: Run, taken: Running, neighbour: Running) -> None:
        self.run = run
        self.taken = taken
        self.neighbour = neighbour
        line = ["runc", "--root", str(self._host / "runc"), "exec", taken.instance]
        line += ["/usr/bin/python3", "-c", Path(implant.__file__).read_text()]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        run.clean_up.callback(self._process.wait)
        run.clean_up.callback(self._process.kill)

    @property
    def _host(self) -> Path:
        return self.run.state / "netd" / self.taken.node.name

    @cached_property
    def surroundings(self) -> Surroundings:
        """What listens around the container."""
        return Surroundings(self.run, self.taken.node)

    @cached_property
    def address(self) -> str:
        """The address of the instance."""
        return str(self.rule()["dstInterface"][0]["dstIpAddress"])

    def do(self, deed: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        """Have the implant do something; return what it says."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise Broken("nobody is inside")
        stdin.write(json.dumps({"do": deed, **arguments}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise Broken(f"the intruder ended at {deed}")
        return dict(json.loads(line))

    def call(self, method: str, path: str, body: Any = None) -> str | None:  # noqa: ANN401 - any JSON
        """Call Mp1; return the code of the refusal."""
        code = self.do("mp1", method=method, path=path, body=body)["code"]
        return None if code is None else str(code)

    def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        """Read something from Mp1; raises `Broken` if that is refused."""
        said = self.do("mp1", method="GET", path=path)
        if said["code"] is not None:
            raise Broken(f"the application could not read {path}", said["code"])
        return said["body"]

    def own(self, what: str) -> str:
        """Return a path of the instance's own."""
        return f"{SUPPORT}/{self.taken.instance}/{what}"

    def rule(self, kind: str = "traffic_rules") -> dict[str, Any]:
        """Read the instance's own rule."""
        return dict(self.get(self.own(kind))[0])

    def put(self, kind: str, rule: dict[str, Any], name: str | None = None) -> str | None:
        """Write a rule of the instance."""
        identifier = name or rule.get("trafficRuleId") or rule["dnsRuleId"]
        return self.call("PUT", f"{self.own(kind)}/{identifier}", rule)

    def put_back(self, kind: str) -> dict[str, Any]:
        """Write the rule as it is, which is taken; return it."""
        rule = self.rule(kind)
        if refused := self.put(kind, rule):
            raise Broken("the application's own rule was refused as it is", refused)
        return rule

    def kernel(self, deeds: list[tuple[str, dict[str, Any]]], words: frozenset[str], code: str) -> str | None:
        """Do things that the kernel has to refuse with one of these words; return the code, or what it said."""
        said = {f"{deed}{list(how.values())}": self.do(deed, **how)["code"] for deed, how in deeds}
        return _all_refused(said, words, code)


def to_another_address(intruder: Intruder) -> str | None:
    """Turn the own rule to an address of another tenant."""
    rule = intruder.put_back("traffic_rules")
    rule["trafficFilter"][0]["dstAddress"] = [ADDRESSES[intruder.neighbour.node.tenant]]
    return intruder.put("traffic_rules", rule)


def to_everything(intruder: Intruder) -> str | None:
    """Widen the own rule to every address and port."""
    rule = intruder.put_back("traffic_rules")
    rule["trafficFilter"] = [{"dstAddress": ["0.0.0.0/0"]}]
    return intruder.put("traffic_rules", rule)


def to_another_name(intruder: Intruder) -> str | None:
    """Turn the own DNS rule to a name of another tenant."""
    rule = intruder.put_back("dns_rules")
    return intruder.put("dns_rules", rule | {"domainName": f"hello.{intruder.neighbour.node.tenant}.mec.internal"})


def new_rule(intruder: Intruder) -> str | None:
    """Add a rule that nobody admitted."""
    rule = intruder.put_back("traffic_rules")
    return intruder.put("traffic_rules", rule | {"trafficRuleId": "mine"})


def rules_of_another(intruder: Intruder) -> str | None:
    """Write a rule in the name of another instance."""
    rule = intruder.put_back("traffic_rules")
    path = f"{SUPPORT}/{intruder.neighbour.instance}/traffic_rules/{rule['trafficRuleId']}"
    return intruder.call("PUT", path, rule)


def undeclared_service(intruder: Intruder) -> str | None:
    """Offer a service that the descriptor does not name."""
    service = intruder.get(f"{SERVICES}/applications/{intruder.taken.instance}/services")[0]
    path = f"{SERVICES}/applications/{intruder.taken.instance}/services"
    offered = {name: service[name] for name in ("version", "state", "serializer", "transportInfo")}
    if refused := intruder.call("PUT", f"{path}/{service['serInstanceId']}", {**offered, "serName": "hello"}):
        raise Broken("the application's own service was refused", refused)
    return intruder.call("POST", path, {**offered, "serName": "parking"})


def management(intruder: Intruder) -> str | None:
    """Show the instance's token to the management API, which listens beside the token endpoint."""
    intruder.rule()
    paths = ("/platform/v1/tenants", "/attest/v1/nodes", "/identity/v1/clients")
    return ", ".join(sorted({str(intruder.do("management", path=path)["code"]) for path in paths}))


def operators_scope(intruder: Intruder) -> str | None:
    """Ask for a token with the scope of an operator, or for another API."""
    if refused := intruder.do("token", resource=f"{MP1}/", scope="mec:app")["code"]:
        raise Broken("the application got no token", refused)
    other = intruder.do("token", resource=f"{MANAGEMENT}/platform/v1", scope="platform:admin")["code"]
    wider = intruder.do("token", resource=f"{MP1}/", scope="mec:app platform:admin")["code"]
    return str(wider) if other == "target-invalid" else f"another API: {other}"


def sockets(intruder: Intruder) -> str | None:
    """Reach `netd`, the registry's store behind the gateway, the node's agent, or a name of the node, by sockets."""
    run = intruder.run
    found = [intruder.run.state / "netd" / intruder.taken.node.name / "netd.sock"]
    found += [*run.folder.rglob("registry.sock"), run.folder / f"agent-{intruder.taken.node.name}" / "agent.sock"]
    for path in found:  # they are there, and answer on the host
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    intruder.surroundings.check_local()
    if (said := intruder.kernel([("unix", {"path": ABSTRACT})], NO_SUCH_NAME, OUT_OF_REACH)) != OUT_OF_REACH:
        return said
    return intruder.kernel([("unix", {"path": str(path)}) for path in found], NOT_THERE, OUT_OF_REACH)


def network(intruder: Intruder) -> str | None:
    """Reach the registry and the site, the node, the camera beside it, and the application of another tenant.

    All of them listen, and the site knows the way back to the networks of applications.
    """
    node, neighbour = intruder.taken.node, intruder.neighbour
    gateway = intruder.address.rpartition(".")[0] + ".1"
    registry = (SITE_ADDRESS, int(REGISTRY.rpartition(":")[2]))
    near = [registry, *((address, PORT) for address in (SITE_ADDRESS, gateway, node.access_address))]
    near += [(address.partition("/")[0], PORT) for address in (node.camera_address, node.uplink)]
    theirs = (neighbour.address, 8080)
    intruder.surroundings.check_reached(node.name, near, source=gateway)
    intruder.surroundings.check_reached(neighbour.node.camera, [theirs])
    if refused := intruder.do("tcp", places=[(SITE_ADDRESS, int(MP1.rpartition(":")[2]))])["codes"][0]:
        raise Broken("the application does not reach Mp1", refused)
    places = [*near, theirs]
    said = intruder.do("tcp", places=places)["codes"]
    return _all_refused(dict(zip(map(str, places), said, strict=True)), SILENCE, OUT_OF_REACH)


def keys_of_others(intruder: Intruder) -> str | None:
    """Read the key of another instance, and the operator's."""
    if refused := intruder.do("read", path="/run/umec/client.json")["code"]:
        raise Broken("the application cannot read its own key", refused)
    neighbour, state = intruder.neighbour, intruder.run.state
    theirs = state / "netd" / neighbour.node.name / "instances" / neighbour.instance / "secrets" / "client.json"
    found = [theirs, state / "operator.json", state / "server.key"]
    if missing := [str(path) for path in found if not path.exists()]:
        raise Broken(f"not there on the host either: {', '.join(missing)}")
    deeds = [("read", {"path": f"{root}{path}"}) for path in found for root in ("", "/proc/1/root", "/run/umec/../..")]
    return intruder.kernel(deeds, NOT_THERE, OUT_OF_REACH)


def files_of_the_host(intruder: Intruder) -> str | None:
    """Change the own program and key, the kernel's settings, and where names are asked."""
    if refused := intruder.do("write", path="/tmp/mine")["code"]:  # noqa: S108 - in the container
        raise Broken("the application cannot write where it may", refused)
    paths = ("/app/app.py", "/run/umec/client.json", "/etc/resolv.conf", "/proc/sys/net/ipv4/ip_forward", "/mine")
    return intruder.kernel([("write", {"path": path}) for path in paths], FORBIDDEN, NOT_PERMITTED)


def root(intruder: Intruder) -> str | None:
    """Become root, enter a user namespace, mount, make devices, send raw packets, trace, load a kernel module.

    The kernel itself tells that this process has no capability and can get none, and that its calls are filtered.
    """
    intruder.rule()
    said = intruder.do("confines")["confines"]
    if wrong := {name: value for name, value in said.items() if not CONFINED[name](value)}:
        return f"the process is not confined: {wrong}"
    if len(said) != len(CONFINED):
        raise Broken(f"the kernel tells too little: {said}")
    names = ("become_root", "new_user_namespace", "mount", "device", "raw_socket", "trace", "load_module")
    return intruder.kernel([(name, {}) for name in names], FORBIDDEN, NOT_PERMITTED)


def injection(intruder: Intruder) -> str | None:
    """Put text for a shell, Unbound, nftables, runc and others into every text field of Mp1, paths among them.

    Each is refused, or taken as the text that it is; none comes any further.
    """
    instance = intruder.taken.instance
    traffic, name = intruder.put_back("traffic_rules"), intruder.put_back("dns_rules")
    services = f"{SERVICES}/applications/{instance}/services"
    service = intruder.get(services)[0]
    one = f"{services}/{service['serInstanceId']}"
    bodies: list[tuple[str, str, type[BaseModel], dict[str, Any] | None]] = [
        ("PUT", f"{intruder.own('traffic_rules')}/{traffic['trafficRuleId']}", TrafficRule, traffic),
        ("PUT", f"{intruder.own('dns_rules')}/{name['dnsRuleId']}", DnsRule, name),
        ("PUT", one, ServiceInput, service),
        ("PATCH", f"{SERVICES}/services/{service['serInstanceId']}/liveness", ServiceLivenessUpdate, None),
        ("POST", f"{SUPPORT}/{instance}/confirm_ready", AppReadyConfirmation, None),
        ("POST", f"{SUPPORT}/{instance}/confirm_termination", AppTerminationConfirmation, None),
        ("POST", f"{SUPPORT}/{instance}/subscriptions", AppTerminationNotificationSubscription, None),
        (
            "POST",
            f"{SERVICES}/applications/{instance}/subscriptions",
            SerAvailabilityNotificationSubscription,
            None,
        ),
    ]
    sent, wrong = 0, []
    for method, path, model, good in bodies:
        for text in texts(model, good):
            payload = text.good + PAYLOADS[sent % len(PAYLOADS)]
            sent += 1
            said = intruder.do("mp1", method=method, path=path, body=text.build(payload))
            if said["code"] == "internal-error" or not _literal(said, text.place, payload):
                wrong.append(f"{method} {model.__name__} {text.place}: {said}")
    for payload in PAYLOADS:
        for path in (f"{intruder.own('dns_rules')}/", f"{services}/", f"{SERVICES}/services?ser_name="):
            said = intruder.do("mp1", method="GET", path=path + payload)
            if said["code"] == "internal-error" or TRACE in json.dumps(said):
                wrong.append(f"GET {path}{payload!r}: {said}")
    if refused := intruder.call("PUT", one, service):
        raise Broken("the application's own service was refused as it was", refused)
    return "; ".join(wrong) or left_behind(intruder.run, intruder.taken.node, instance, intruder.address)


def _literal(said: dict[str, Any], place: tuple[str | int, ...], text: str) -> bool:
    """Tell whether an answer holds the text as it was put and where it was put, or nothing of it."""
    if TRACE not in json.dumps(said):
        return True
    here: Any = said["body"]
    try:
        for step in place:
            here = here[step]
    except (KeyError, IndexError, TypeError):
        return False  # it is somewhere else
    return bool(here == text)


def _all_refused(said: dict[str, str | None], words: frozenset[str], code: str) -> str:
    """Return the code if every word is one of these, else what was said otherwise."""
    wrong = {what: word for what, word in said.items() if word not in words}
    return code if not wrong else "; ".join(f"{what}: {word or 'done'}" for what, word in wrong.items())


HAS: Final = "code in a container, its key"

ATTACKS: Final[tuple[Attack[Intruder], ...]] = (
    Attack("own-rule-to-another-tenant", "rule-fixed", HAS, to_another_address),
    Attack("own-rule-to-everything", "rule-fixed", HAS, to_everything),
    Attack("own-name-to-another-tenant", "rule-fixed", HAS, to_another_name),
    Attack("rule-that-nobody-admitted", "rule-unknown", HAS, new_rule),
    Attack("rule-of-another-instance", "instance-foreign", HAS, rules_of_another),
    Attack("service-not-in-the-descriptor", "service-not-declared", HAS, undeclared_service),
    Attack("management-from-inside", "token-audience", HAS, management),
    Attack("operators-scope-from-inside", "scope-invalid", HAS, operators_scope),
    Attack("injection-through-mp1", "no-trace", HAS, injection),
    Attack("sockets-of-the-host", OUT_OF_REACH, HAS, sockets),
    Attack("network-beyond-the-tenant", OUT_OF_REACH, HAS, network),
    Attack("keys-of-others", OUT_OF_REACH, HAS, keys_of_others),
    Attack("files-of-the-host", NOT_PERMITTED, HAS, files_of_the_host),
    Attack("root-on-the-host", NOT_PERMITTED, HAS, root),
)
