"""What the demo prints: one line a step, readable or as JSON, and whether every one of them held."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["LINKS", "Broken", "Evidence", "Timeline"]

LINKS = {
    1: "node image",
    2: "measured boot",
    3: "enrolment",
    4: "attestation",
    5: "verdict",
    6: "node credential",
    7: "application image",
    8: "promotion",
    9: "admission",
    10: "application credential",
    11: "rule",
    12: "audit",
}


class Broken(Exception):
    """A step did not show what it should: what was found, and the code if a part of the platform gave one."""

    def __init__(self, detail: str, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code

    def fields(self) -> dict[str, str | None]:
        """Return the members of a JSON line."""
        return {"code": self.code, "detail": self.detail}


@dataclass(slots=True)
class Evidence:
    """What a step saw: `note` is printed, `data` is hashed."""

    note: str = ""
    data: bytes = b""


@dataclass(slots=True)
class Timeline:
    """Prints the steps and remembers whether all held; `kinds` says of what kind each attack is."""

    as_json: bool
    kinds: Mapping[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    attacks: dict[str, list[bool]] = field(default_factory=dict)
    """Whether each attack of a kind was refused."""
    began: float = field(default_factory=time.perf_counter)
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def chapter(self, title: str) -> None:
        """Start a part of the story."""
        if not self.as_json:
            self.console.print(f"\n[bold]{title}[/]")

    def note(self, text: str) -> None:
        """Say something that is no step."""
        if not self.as_json:
            self.console.print(f"        [dim]{text}[/]")

    @contextmanager
    def link(self, number: int, name: str) -> Iterator[Evidence]:
        """A step of the chain: it holds unless the block raises. A broken link ends the run: the rest stands on it."""
        evidence, started = Evidence(), time.perf_counter()
        try:
            yield evidence
        except Broken as broken:
            self._line(
                {
                    "link": number,
                    "name": name,
                    "ok": False,
                    "ms": _ms(started),
                    "code": broken.code,
                    "detail": broken.detail,
                },
                f"[red]✗[/] [bold]{number:>2}[/] {LINKS[number]}: {name} — [red]{broken.code or 'failed'}[/]: "
                + escape(broken.detail),
            )
            self.broken.append(f"link {number} ({LINKS[number]}): {name}")
            raise
        digest = f"sha256:{hashlib.sha256(evidence.data).hexdigest()}"
        self._line(
            {"link": number, "name": name, "ok": True, "ms": _ms(started), "evidence": digest},
            f"[green]✓[/] [bold]{number:>2}[/] {LINKS[number]}: {name} [dim]{evidence.note} {_ms(started)} ms[/]",
        )

    def attack(self, name: str, *, expected: str, code: str | None, detail: str = "") -> None:
        """An attack: refused for the expected reason, or the run has failed."""
        refused = code == expected
        self.attacks.setdefault(self.kinds.get(name, "other"), []).append(refused)
        line = {"attack": name, "refused": refused, "code": code}
        if refused:
            self._line(line, f"[green]✓[/]  ⚔ {name}: refused, [bold]{code}[/]")
        else:
            self.broken.append(f"attack {name}: expected {expected}, got {code or 'no refusal'}")
            self._line(
                {**line, "expected": expected, "detail": detail},
                f"[red]✗[/]  ⚔ {name}: expected {expected}, got {escape(code or 'no refusal')} " + escape(detail),
            )

    def effect(self, name: str, *, ok: bool, ms: float | None, detail: str = "") -> None:
        """A consequence, and how long it took to arrive."""
        took = "" if ms is None else f"after {ms:.0f} ms"
        self._line(
            {"effect": name, "ok": ok, "ms": None if ms is None else round(ms), "detail": detail},
            f"[{'green' if ok else 'red'}]{'✓' if ok else '✗'}[/]  → {name} {took} [dim]{detail}[/]",
        )
        if not ok:
            self.broken.append(f"effect {name}: {detail}")

    def finish(self) -> int:
        """Say how it went, by kinds of attacks, and how long it took; return the exit status."""
        seconds = round(time.perf_counter() - self.began, 1)
        if self.as_json:
            counted = {kind: {"refused": sum(done), "of": len(done)} for kind, done in self.attacks.items()}
            self._print({"ok": not self.broken, "broken": self.broken, "attacks": counted, "seconds": seconds})
            return 1 if self.broken else 0
        self.console.print(self._table(seconds))
        if self.broken:
            self.console.print("\n[bold red]The chain is broken:[/]")
            for line in self.broken:
                self.console.print(f"  {line}", markup=False)
        else:
            self.console.print("\n[bold green]Every link held and every attack was refused.[/]")
        return 1 if self.broken else 0

    def _table(self, seconds: float) -> Table:
        done = [one for kind in self.attacks.values() for one in kind]
        table = Table("attacks", "refused", title=f"\n{seconds:g} s", title_justify="left", show_footer=True)
        table.columns[0].footer, table.columns[1].footer = "all", f"{sum(done)} / {len(done)}"
        for kind, refused in self.attacks.items():
            table.add_row(kind, f"{sum(refused)} / {len(refused)}")
        return table

    def _line(self, fields: dict[str, Any], readable: str) -> None:
        if self.as_json:
            self._print(fields)
        else:
            self.console.print(readable)

    def _print(self, fields: dict[str, Any]) -> None:
        print(json.dumps(fields, ensure_ascii=False), flush=True)  # noqa: T201 - this is the output


def _ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
