"""Ends with an error where the suite reaches too few lines or branches of src/segweave.

python tests/coverage_gate.py      after `pytest --cov`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LINES = 97.0
BRANCHES = 90.0
_SHOWN = 12


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        call = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(file)]
        subprocess.run(call, check=True)
        content = json.loads(file.read_text(encoding="utf-8"))
    totals = content["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    reached = f"lines {lines:.2f} %, branches {branches:.2f} %"
    print(f"{reached} (at least {LINES} % and {BRANCHES} %)")
    missing = {name: one["missing_lines"] for name, one in content["files"].items()}
    for name in sorted(missing, key=lambda n: -len(missing[n]))[:_SHOWN]:
        if missing[name]:
            shown = ", ".join(map(str, missing[name][:_SHOWN]))
            print(f"  {name}: {len(missing[name])} lines not run, first {shown}")
    return 0 if lines >= LINES and branches >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main())
