"""The demonstration that `make demo` runs: it holds what it claims, and says so if it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
WRAPPED = "_ClientSession = asyncio_loop_local.sticky_singleton_acm(aiohttp.ClientSession)\n"


def run_demo(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, encoding="utf-8", timeout=50, check=False
    )


def test_the_demonstration_shows_one_session_per_loop() -> None:
    """The demonstration ends well, with a line for each loop: hundreds of fetches, one session, closed."""
    result = run_demo(DEMO)
    assert (result.returncode, result.stderr) == (0, "")
    rows = re.findall(r"^(.+ no\. \d) +(\d+) +(\d+) +(\d+) +(\d+)  in a finally  closed$", result.stdout, re.MULTILINE)
    assert len(rows) == 9
    assert len({name for name, *_ in rows}) == 9
    for _, tasks, fetches, sessions, connections in rows:
        assert int(sessions) == 1
        assert 1 <= int(connections) < int(tasks) < int(fetches)
    assert sum(int(fetches) for _, _, fetches, _, _ in rows) == 909
    assert "909 fetches on 9 event loops through 9 sessions" in result.stdout


def test_the_demonstration_fails_where_its_claims_do_not_hold(tmp_path: Path) -> None:
    """With an unwrapped session class, the same program says what does not hold, and ends with 1."""
    source = DEMO.read_text(encoding="utf-8")
    assert source.count(f"\n{WRAPPED}") == 1
    unwrapped = tmp_path / "unwrapped.py"
    unwrapped.write_text(source.replace(WRAPPED, "_ClientSession = aiohttp.ClientSession\n"), encoding="utf-8")
    result = run_demo(unwrapped)
    assert result.returncode == 1
    assert "it is not so that one session was opened, and all tasks shared it" in result.stdout
    assert "through 9 sessions" not in result.stdout
