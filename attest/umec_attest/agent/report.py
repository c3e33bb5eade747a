"""What the agent says of itself: one line for each thing that happens, for programs or for people."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Report", "readable", "reporter"]

Report = Callable[[Mapping[str, Any]], None]
"""Receives a status line: one JSON object."""


def reporter(*, as_json: bool) -> Report:
    """Return what writes each line to standard output, at once."""

    def report(line: Mapping[str, Any]) -> None:
        sys.stdout.write((json.dumps(line, ensure_ascii=False) if as_json else readable(line)) + "\n")
        sys.stdout.flush()

    return report


def readable(line: Mapping[str, Any]) -> str:
    """Return a status line for people."""
    head = f"{line['at']} {line['node']} round {line['round']}:"
    match line["event"]:
        case "round":
            findings = "".join(f"\n  {finding['id']}: {finding['detail']}" for finding in line["findings"])
            return f"{head} {line['verdict']}, {line['standing']} (generation {line['generation']}){findings}"
        case "certificate":
            return f"{head} new certificate until {line['expires_at']}"
        case "rotated":
            return f"{head} new keys, the attestation key is {line['ak_name']}"
        case _:
            again = f", again in {line['retry_seconds']} s" if "retry_seconds" in line else ""
            return f"{head} {line['code']}: {line['detail']}{again}"
