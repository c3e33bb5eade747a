"""An attack is a line in a table: what it is called, how it is to be refused, what the attacker has, what they do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken

__all__ = ["Attack", "carry_out"]

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Attack(Generic[C]):
    """`attempt` first does the same thing honestly, which has to succeed; it returns the code of the refusal."""

    name: str
    expected: str
    has: str
    attempt: Callable[[C], str | None]

    def line(self, kind: str) -> dict[str, Any]:
        """Return the members of a line of `--list`."""
        return {"attack": self.name, "kind": kind, "expected": self.expected, "has": self.has}


def carry_out(run: Run, attacks: Sequence[Attack[C]], prepare: Callable[[], C]) -> None:
    """Carry out attacks, or the one that was asked for; what they need is prepared only then.

    A run with a broken link is about that link, and shows none.
    """
    if run.sabotage is not None:
        return
    wanted = [attack for attack in attacks if run.only in {None, attack.name}]
    if not wanted:
        return
    prepared = prepare()
    for attack in wanted:
        detail, code = "", None
        try:
            code = attack.attempt(prepared)
        except Broken as broken:  # the honest variant failed, so a refusal would show nothing
            detail = f"({broken.detail})"
        run.timeline.attack(attack.name, expected=attack.expected, code=code, detail=detail)
        run.shown = run.only is not None
