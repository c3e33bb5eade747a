"""`python -m umec_attest.agent`: what `umec node run` becomes, without the command line's libraries in its memory."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from umec_attest.agent.evidence import BOOT_LOG, RUNTIME_LIST
from umec_attest.agent.loop import ROTATION_PERIOD
from umec_attest.agent.report import reporter
from umec_attest.agent.running import Options, run_until_told
from umec_core.errors import UmecError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until SIGTERM; returns the exit status."""
    given = _parser().parse_args(arguments)
    options = Options(
        given.state,
        given.tcti,
        given.boot_log,
        given.save,
        given.rotate_days,
        given.runtime_list,
        given.owner,
        given.approval,
    )
    try:
        run_until_told(options, reporter(as_json=given.json))
    except UmecError as error:
        refusal = {"refused": True, "code": error.code, "detail": error.detail, "advice": error.advice}
        sys.stderr.write(json.dumps(refusal, ensure_ascii=False) + "\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="umec-agent", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--boot-log", type=Path, default=BOOT_LOG)
    parser.add_argument("--runtime-list", type=Path, default=RUNTIME_LIST)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--tcti")
    parser.add_argument("--rotate-days", type=int, default=ROTATION_PERIOD.days)
    parser.add_argument("--owner", type=Path)
    parser.add_argument("--approval", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
