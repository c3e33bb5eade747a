"""The compiled rules that are wanted, and whether a new one would speak for packets of another. Pure."""

from collections.abc import Iterator
from itertools import chain

from umec_platform.netd.boxes import Box, CompiledRule
from umec_platform.netd.errors import RuleOverlaps

__all__ = ["RuleBook"]

_Exact = tuple[int, int, int]


class RuleBook:
    """Rules by tenant and identifier; exact ones are also found by what they match, so that an addition stays cheap."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], CompiledRule] = {}
        self._exact: dict[_Exact, dict[tuple[str, str], CompiledRule]] = {}
        self._wide: dict[tuple[str, str], CompiledRule] = {}

    def __iter__(self) -> Iterator[CompiledRule]:
        return iter(list(self._rules.values()))

    def __len__(self) -> int:
        return len(self._rules)

    def get(self, tenant: str, rule: str) -> CompiledRule | None:
        """Return a rule, if it is there."""
        return self._rules.get((tenant, rule))

    def check(self, rule: CompiledRule) -> None:
        """Raise `RuleOverlaps` if another tenant's rule, or one of the same priority, has some of its packets."""
        for box in rule.boxes:
            exact = self._exact.get(_key(box), {}).values() if box.exact else self._rules.values()
            for other in chain(exact, self._wide.values()):
                if other.key == rule.key or (other.tenant == rule.tenant and other.priority != rule.priority):
                    continue
                if any(box.overlaps(theirs) for theirs in other.boxes):
                    # The other tenant's name and rule are not this tenant's business.
                    whose = f"rule {other.id}" if other.tenant == rule.tenant else "another tenant's rule"
                    raise RuleOverlaps(f"rule {rule.id} speaks for packets that {whose} already has")

    def put(self, rule: CompiledRule) -> None:
        """Add or replace a rule that was checked."""
        self.discard(rule.tenant, rule.id)
        self._rules[rule.key] = rule
        for box in rule.boxes:
            if box.exact:
                self._exact.setdefault(_key(box), {})[rule.key] = rule
            else:
                self._wide[rule.key] = rule

    def discard(self, tenant: str, rule: str) -> CompiledRule | None:
        """Remove a rule and return it, if it was there."""
        found = self._rules.pop((tenant, rule), None)
        if found is None:
            return None
        self._wide.pop(found.key, None)
        for box in found.boxes:
            same = self._exact.get(_key(box), {})
            same.pop(found.key, None)
            if not same:
                self._exact.pop(_key(box), None)
        return found


def _key(box: Box) -> _Exact:
    return (box.dst[0], box.protocol[0], box.dport[0])
