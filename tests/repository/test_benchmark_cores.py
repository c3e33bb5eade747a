"""Benchmarks have a core for what is measured and one for what asks: sharing one falsifies every figure."""

import json
import os
import subprocess
import sys

PARENT = """
import os, subprocess, sys
from measuring import SERVER, pin
pin(SERVER)
print(sorted(os.sched_getaffinity(0)), flush=True)
for what in ("pin(LOAD)", "unpin()"):
    child = f"import os; from measuring import *; {what}; print(sorted(os.sched_getaffinity(0)))"
    subprocess.run([sys.executable, "-c", child], check=True)
"""


def test_a_process_started_by_a_pinned_one_gets_the_other_core(root):
    environment = os.environ | {"PYTHONPATH": str(root / "benchmarks")}
    ran = subprocess.run([sys.executable, "-c", PARENT], env=environment, check=True, capture_output=True, text=True)
    server, load, whole = map(json.loads, ran.stdout.splitlines())
    cores = len(whole)
    assert (server, load) == ([whole[0]], [whole[1 % cores]])
    assert cores >= len(os.sched_getaffinity(0))
