"""How `umec image verify` says every check: what was expected, what was found, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from umec_platform.cli.output import REFUSED_EXIT, emit

__all__ = ["say"]

MARKS = {"holds": "ok      ", "refused": "REFUSED ", "passed-over": "ignored ", "not-judged": "not done"}


def say(result: Mapping[str, Any], refusal: Mapping[str, Any] | None, *, as_json: bool) -> None:
    """Print a result with its checks; ends with exit status 1 where there is a refusal (code, detail, advice)."""
    if refusal is None:
        emit(result, as_json=as_json, human="\n".join([*_lines(result["checks"]), "all of it holds"]))
        return
    said = {"refused": True, **{name: refusal[name] for name in ("code", "detail", "advice")}}
    verdict = [f"refused {refusal['code']}: {refusal['detail']}"]
    verdict += [] if refusal["advice"] is None else [f"  what to do: {refusal['advice']}"]
    emit({**result, **said}, as_json=as_json, human="\n".join([*_lines(result["checks"]), *verdict]))
    raise typer.Exit(REFUSED_EXIT)


def _lines(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for check in checks:
        code = "" if check["code"] is None else f" [{check['code']}]"
        lines.append(f"{MARKS[check['status']]} {check['check']}{code}: {check['found']}")
        if check["status"] != "holds":
            lines.append(f"           expected: {check['expected']}")
        if check["advice"] is not None:
            lines.append(f"           what to do: {check['advice']}")
        if "policy_sha256" in check:
            lines.append(
                f"           decided by: {', '.join(check['policies']) or 'none'} of sha256:{check['policy_sha256']}"
            )
            lines += [f"           {name} = {value}" for name, value in sorted(check["facts"].items())]
    return lines
