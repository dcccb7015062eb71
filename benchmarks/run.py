"""Run all benchmarks one after another, each in a process of its own.

Run as `python benchmarks/run.py [--only NAME ...]`; those on photos need ZEROLABEL_DATA.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
HELPERS = {"run", "common", "timing", "vits"}  # imported by the others


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=names, action="append", metavar="NAME", help=str(names))
    failed = []
    for name in parser.parse_args().only or names:
        print(f"\n== {name} ==", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode:
            failed.append(name)
        print(f"-- {name}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
