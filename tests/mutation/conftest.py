"""The tool's own modules, which are no package: no folder of tests is one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
