"""Ten thousand damaged files, odd templates, command lines and candidates; CI runs hundreds.

    python benchmarks/fuzz.py                        all four kinds, 2,500 cases each
    python benchmarks/fuzz.py templates --cases 9000 --first 2500

A case that fails is printed with its seed, and the rest goes on; the exit code is 1. The fuzzers
are in tests/fuzz, which says what must hold.
"""

import argparse
import importlib
import os
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tqdm import tqdm

KINDS = ("files", "templates", "command_lines", "candidates")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; or all")
    parser.add_argument("--cases", type=int, default=2500, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = parser.parse_args()
    if unknown := set(chosen.kinds) - set(KINDS):
        parser.error(f"there is no kind {', '.join(unknown)}")
    os.environ |= {"HF_HUB_OFFLINE": "1", "SFTLAB_CACHE": tempfile.mkdtemp(prefix="sftlab-fuzz-")}
    failed = 0
    for kind in chosen.kinds or KINDS:
        check, outcomes = importlib.import_module(kind).check, Counter()
        for seed in tqdm(range(chosen.first, chosen.first + chosen.cases), desc=kind):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcomes[check(seed, Path(folder))] += 1
                except Exception:
                    outcomes["FAILED"] += 1
                    tqdm.write(f"{kind}, seed {seed}\n{traceback.format_exc()}")
        failed += outcomes["FAILED"]
        print(f"{kind}: " + ", ".join(f"{what} {n:,}" for what, n in outcomes.most_common()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
