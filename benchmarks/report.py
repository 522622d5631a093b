"""What a report of 10,000 trajectories takes: to build, to open in Chromium, to scroll and to search.

    python benchmarks/report.py [--problems 500] [--samples 20] [--words 400] [--output FILE.json]

The trajectories are made up; chromium and chromedriver are needed, and the package selenium.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.report.fake import make

SCROLL = """
const done = arguments[0], box = document.querySelector(".lines"), times = [];
let before = performance.now();
const frame = (now) => {
  times.push(now - before);
  before = now;
  box.scrollTop += 620;
  if (times.length < 400) requestAnimationFrame(frame);
  else done(times.slice(1).sort((a, b) => a - b));
};
requestAnimationFrame(frame);
"""
SEARCH = """
const done = arguments[0], box = document.querySelector("[type=search]"), count = document.querySelector(".count");
const before = count.textContent, start = performance.now();
box.value = "y < 1";
box.dispatchEvent(new Event("input"));
const look = () => count.textContent === before ? requestAnimationFrame(look) : done(performance.now() - start);
look();
"""
OPEN = """
const done = arguments[0], start = performance.now();
document.querySelectorAll(".lines .line")[3].click();
const look = () => document.querySelector(".round") ? done(performance.now() - start) : requestAnimationFrame(look);
look();
"""


def build_it(run: Path, output: Path) -> dict[str, float]:
    from inftythink.report.build import build

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    page = build([run], output)
    shards = list((output / "data").glob("*.js"))
    return {
        "CPU seconds": round(time.process_time() - start, 1),
        "peak RSS MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "RSS before MiB": round(before / 1024),
        "trajectories.jsonl MiB": round((run / "trajectories.jsonl").stat().st_size / 2**20, 1),
        "index.html MiB": round(page.stat().st_size / 2**20, 2),
        "shards": len(shards),
        "shards MiB": round(sum(path.stat().st_size for path in shards) / 2**20, 1),
    }


def browse(page: Path) -> dict[str, float]:
    from tests.report.chromium import start

    driver = start()
    driver.set_script_timeout(120)
    try:
        ready = []
        for _ in range(5):
            driver.get("about:blank")
            driver.get(page.as_uri() + "#view=browse")
            ready.append(driver.execute_script("return performance.getEntriesByName('ready')[0].startTime"))
        frames = driver.execute_async_script(SCROLL)
        found = {
            "page ready ms, first": round(ready[0]),
            "page ready ms, median of 5": round(sorted(ready)[2]),
            "frame ms, median": round(frames[len(frames) // 2], 1),
            "frame ms, p95": round(frames[len(frames) * 95 // 100], 1),
            "frame ms, longest": round(frames[-1], 1),
            "search ms": round(driver.execute_async_script(SEARCH)),
            "open a trajectory ms": round(driver.execute_async_script(OPEN)),
        }
        driver.get("about:blank")
        driver.get(page.as_uri())
        overview = driver.execute_script("return performance.getEntriesByName('ready')[0].startTime")
        return found | {"overview ready ms": round(overview)}
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--words", type=int, default=400, help="words of a thought")
    parser.add_argument("--only", nargs=2, type=Path, metavar=("RUN", "DIR"), help="build in this process; print JSON")
    parser.add_argument("--output", help="also write the figures here, as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(build_it(*args.only)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run, output = Path(folder) / "run", Path(folder) / "report"
        make(run, tasks={"made-up": args.problems}, samples=args.samples, words=args.words)
        command = [sys.executable, __file__, "--only", str(run), str(output)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = {"build": json.loads(done.stdout), "chromium": browse(output / "index.html")}
    for name, figures in found.items():
        table = Table("", name, title=f"{args.problems * args.samples:,} trajectories")
        for label, value in figures.items():
            table.add_row(label, f"{value:,}")
        Console().print(table)
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
