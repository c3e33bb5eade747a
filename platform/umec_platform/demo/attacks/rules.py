"""Rules: a malicious tenant writes application descriptors that reach beyond it, or into what carries them out."""

import copy
import json
from typing import Any, Final

from umec_platform.demo import applications
from umec_platform.demo.attacks.fields import PAYLOADS, texts
from umec_platform.demo.attacks.stranger import succeed
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.attacks.traces import left_behind, resolver_data
from umec_platform.demo.command import wait_for
from umec_platform.demo.hand import PLATFORM, Hand, register
from umec_platform.demo.run import MANAGEMENT, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES
from umec_platform.packages.appd import AppD

__all__ = ["ATTACKS", "Tenant"]

Path = tuple[str | int, ...]

PACKAGES: Final = f"{MANAGEMENT}/app_pkgm/v1/app_packages"

INJECTIONS: Final = (
    "x; reboot $(reboot) `reboot`",
    "x\nlocal-data: example.com A 192.0.2.1",
    "x } ; flush ruleset",
    '"}], "privileged": true',
    "../../../etc/shadow",
)
"""For a shell, Unbound, nftables, the OCI runtime, and a path."""

RULE: Final[Path] = ("appTrafficRule", 0)
FILTER: Final[Path] = (*RULE, "trafficFilter", 0)
NAME: Final[Path] = ("appDNSRule", 0)
NAMES_OF_THINGS: Final[tuple[Path, ...]] = (
    ("appDId",),
    ("swImageDescriptor", 0, "swImage"),
    (*RULE, "trafficRuleId"),
    (*RULE, "action"),
    (*RULE, "filterType"),
    (*RULE, "dstInterface", 0, "dstIpAddress"),
    (*NAME, "dnsRuleId"),
    (*NAME, "ipAddress"),
    (*NAME, "ipAddressType"),
)
"""Fields that are wrong as such: the descriptor is not read any further."""
MATCHES: Final[tuple[Path, ...]] = (
    (*FILTER, "srcAddress"),
    (*FILTER, "dstAddress"),
    (*FILTER, "srcPort"),
    (*FILTER, "dstPort"),
    (*NAME, "domainName"),
)
"""Fields whose text is read when their rule is translated for the host."""
REFUSALS: Final = frozenset(
    {"appd-invalid", "json-malformed", "rule-invalid", "rule-unsupported", "permission-not-grantable"}
)
"""How a descriptor with a wrong text may be refused."""
OTHER_NAME: Final = "other.city.mec.internal"


class Tenant:
    """Whoever has the account of a tenant."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.http = run.clean_up.enter_context(run.http())
        operator = Hand.of(self.http, run.state / "operator.json")
        self.hand = register(operator, "city-owner", kind="operator", tenant="city", scopes=["platform:tenant"])
        self.good: dict[str, Any] = json.loads((run.folder / "city-hello.appd.json").read_text())
        self.package = self.onboarded = self._package()
        if refused := self.refusal([]):
            raise Broken("the honest descriptor was refused", refused)

    @property
    def token(self) -> str:
        """A token for the management API."""
        return self.hand.kept(PLATFORM)

    def refusal(self, changes: list[tuple[Path, Any]]) -> str | None:
        """Onboard the good descriptor under a new name, with changes; return the code of the refusal."""
        appd = copy.deepcopy(self.good) | {"appDId": f"city-{self.package}"}
        for path, value in changes:
            _put(appd, path, value)
        return self.onboard(appd)

    def onboard(self, appd: dict[str, Any]) -> str | None:
        """Onboard a descriptor; return the code of the refusal."""
        url = f"{PACKAGES}/{self.package}/package_content"
        code = code_of(self.hand.call("PUT", url, self.token, json=appd))
        if code is None:  # it has its content now
            self.onboarded, self.package = self.package, self._package()
        return code

    def descriptor_of_its_own(self) -> dict[str, Any]:
        """Return a good descriptor that claims no packet and no name of the example."""
        appd = copy.deepcopy(self.good)
        appd["appTrafficRule"][0]["trafficFilter"][0] |= {"dstPort": ["8081"], "srcAddress": ["0.0.0.0/1"]}
        appd["appTrafficRule"][0]["trafficFilter"][0] |= {"srcPort": ["1024-65535"]}
        appd["appDNSRule"][0]["domainName"] = OTHER_NAME
        appd["appServiceProduced"].insert(0, {"serName": "other", "version": "1.0"})
        return appd

    def started(self, appd: dict[str, Any]) -> str | None:
        """Have a descriptor's application started; return what of the injected texts is seen on its host."""
        node = NODES[0]
        if refused := self.onboard(appd | {"appDId": f"city-{self.package}"}):
            return refused
        made = applications.instantiate(self.run, f"city-{self.onboarded}", node)
        wait_for("its name", lambda: OTHER_NAME in resolver_data(self.run, node) or None, seconds=20.0)
        seen = left_behind(self.run, node, made["id"], made["address"])
        end = f"{MANAGEMENT}/app_lcm/v1/app_instances/{made['id']}/terminate"
        self.hand.call("POST", end, self.token, json={"terminationType": "FORCEFUL"})
        return seen

    def _package(self) -> str:
        """Make an empty package."""
        made = self.hand.call("POST", PACKAGES, self.token, json={})
        return str(succeed(made, "no package could be made").json()["id"])


def foreign_address(tenant: Tenant) -> str | None:
    """Ask for the packets to an address of another tenant."""
    return tenant.refusal([((*FILTER, "dstAddress"), [applications.ADDRESSES["transit"]])])


def every_address(tenant: Tenant) -> str | None:
    """Ask for the packets to every address."""
    return tenant.refusal([((*FILTER, "dstAddress"), ["0.0.0.0/0"])])


def foreign_name(tenant: Tenant) -> str | None:
    """Answer for a name of another tenant."""
    return tenant.refusal([((*NAME, "domainName"), "hello.transit.mec.internal")])


def foreign_answer(tenant: Tenant) -> str | None:
    """Let an own name lead to an address of another tenant."""
    return tenant.refusal([((*NAME, "ipAddress"), applications.ADDRESSES["transit"])])


def foreign_target(tenant: Tenant) -> str | None:
    """Send packets to an address of another tenant."""
    return tenant.refusal([((*RULE, "dstInterface", 0, "dstIpAddress"), applications.ADDRESSES["transit"])])


def foreign_image(tenant: Tenant) -> str | None:
    """Run an image from the repositories of another tenant."""
    image = str(tenant.good["swImageDescriptor"][0]["swImage"])
    return tenant.refusal([(("swImageDescriptor", 0, "swImage"), image.replace("city/", "transit/"))])


def image_by_tag(tenant: Tenant) -> str | None:
    """Name the image by a tag, which may lead elsewhere when it is used."""
    return tenant.refusal([(("swImageDescriptor", 0, "swImage"), "city/hello:1.0.0")])


def too_much(tenant: Tenant) -> str | None:
    """Ask for a permission that is an operator's."""
    return tenant.refusal([(("requestedPermissions",), ["platform:admin"])])


def another_tenant(tenant: Tenant) -> str | None:
    """Make a package for another tenant."""
    own = tenant.hand.call("POST", f"{PACKAGES}?tenant=city", tenant.token, json={})
    succeed(own, "no package could be made")
    return code_of(tenant.hand.call("POST", f"{PACKAGES}?tenant=transit", tenant.token, json={}))


def into_names(tenant: Tenant) -> str | None:
    """Put text for a shell, Unbound, nftables or runc into every identifier, address and choice."""
    return _everywhere(tenant, NAMES_OF_THINGS)


def into_matches(tenant: Tenant) -> str | None:
    """Put the same into every address, port and name that a rule is about."""
    return _everywhere(tenant, MATCHES)


def everywhere(tenant: Tenant) -> str | None:
    """Put text for a shell, Unbound, nftables, runc and others into every text that a descriptor can have.

    Each is refused, or kept as the text that it is. What was kept is started, with its rules and its name in force:
    nothing of the text has come further.
    """
    appd = tenant.descriptor_of_its_own()
    for number, place in enumerate([text.place for text in texts(AppD, appd)]):
        appd["appDId"] = f"city-{tenant.package}"
        text = next(text for text in texts(AppD, appd) if text.place == place)
        document = text.build(text.good + PAYLOADS[number % len(PAYLOADS)])
        code = tenant.onboard(document)
        if code is None:
            appd = document
        elif code not in REFUSALS:
            return f"{place}: {code}"
    return tenant.started(appd)


def _everywhere(tenant: Tenant, fields: tuple[Path, ...]) -> str | None:
    """Return the one code of all refusals; what was taken, or refused otherwise, is told by its field."""
    found: dict[str | None, str] = {}
    for path in fields:
        several = path[-1] in {"srcAddress", "dstAddress", "srcPort", "dstPort"}
        for text in INJECTIONS:
            code = tenant.refusal([(path, [text] if several else text)])
            found[code] = f"{path[-1]}={text!r}: {code}"
    return next(iter(found)) if len(found) == 1 else "; ".join(sorted(found.values()))


def _put(document: Any, path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


HAS: Final = "a tenant's account"

ATTACKS: Final[tuple[Attack[Tenant], ...]] = (
    Attack("address-of-another-tenant", "address-not-of-tenant", HAS, foreign_address),
    Attack("every-address", "address-not-of-tenant", HAS, every_address),
    Attack("target-of-another-tenant", "address-not-of-tenant", HAS, foreign_target),
    Attack("name-of-another-tenant", "name-not-of-tenant", HAS, foreign_name),
    Attack("name-to-another-tenant", "address-not-of-tenant", HAS, foreign_answer),
    Attack("image-of-another-tenant", "tenant-foreign", HAS, foreign_image),
    Attack("image-by-tag", "appd-invalid", HAS, image_by_tag),
    Attack("permission-of-an-operator", "permission-not-grantable", HAS, too_much),
    Attack("package-for-another-tenant", "tenant-foreign", HAS, another_tenant),
    Attack("injection-into-names", "appd-invalid", HAS, into_names),
    Attack("injection-into-matches", "rule-invalid", HAS, into_matches),
    Attack("injection-into-every-field", "no-trace", HAS, everywhere),
)
