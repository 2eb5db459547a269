#!/usr/bin/env python3
"""The RTL gates that need no build:

1. verilator --lint-only -Wall over every configuration that ships, without one warning;
2. every counter-measure that docs/security.md lists stands at a line of the RTL (// SEC_CM: ID), and
   every ID in the RTL is listed.
"""
import concurrent.futures
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RTL = ROOT / "rtl"
ROOMS = ["common", "prim", "prim/generic", "prim/xilinx", "axi", "puf", "key", "lock", "matmul",
         "activation", "control", "."]
PACKAGES = ["lk_pkg.sv"]
# LATCHKEY_TARGET_XILINX lints the twins that a card gets; cells without a simulation model are black boxes.
XILINX = "-DLATCHKEY_TARGET_XILINX"
TOPS = [("latchkey_core", [f"-GLocked=1'b{locked}", f"-GArrayN={n}"]) for locked in (1, 0) for n in (16, 64)]
TOPS += [("latchkey_core", [XILINX, "-GArrayN=16"]), ("latchkey_enrol", []), ("latchkey_enrol", [XILINX])]


def packages():
    """lk_pkg first, then the other packages of the rooms."""
    rest = sorted(p for p in RTL.rglob("*_pkg.sv") if p.name not in PACKAGES)
    return [str(RTL / p) for p in PACKAGES] + [str(p) for p in rest]


def lint(top, parameters):
    search = [a for room in ROOMS for a in ("-y", str(RTL / room))]
    cells = [str(ROOT / "bitstreams/xcup_cells.sv")] if XILINX in parameters else []
    command = ["verilator", "--lint-only", "-Wall", "--assert", "--unroll-count", "1000",
               "--unroll-stmts", "100000000", "--top-module", top,
               *parameters, *search, str(RTL / "lint.vlt"), *packages(), *cells,
               str(RTL / f"{top}.sv")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, run.stderr


def countermeasures():
    document = ROOT / "docs/security.md"
    if not document.exists():
        print("counter-measures: docs/security.md, which lists them, is missing")
        return False
    listed = set(re.findall(r"^\| `([A-Z0-9_.]+)` \|", document.read_text(), re.M))
    placed = {}
    for path in RTL.rglob("*.sv"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in re.findall(r"SEC_CM: ([A-Z0-9_.]*[A-Z0-9_])", line):
                placed.setdefault(name, f"{path.relative_to(ROOT)}:{number}")
    for name in sorted(listed - placed.keys()):
        print(f"counter-measure {name}: listed in docs/security.md, at no line of the RTL")
    for name in sorted(placed.keys() - listed):
        print(f"counter-measure {name}: at {placed[name]}, not listed in docs/security.md")
    print(f"counter-measures: {len(listed & placed.keys())} listed and placed")
    return listed == placed.keys()


def main():
    clean = True
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (top, parameters), (code, said) in zip(TOPS, pool.map(lambda t: lint(*t), TOPS)):
            print(f"verilator -Wall {top} {' '.join(parameters)}: {'NOT CLEAN' if code else 'clean'}",
                  flush=True)
            if code:
                sys.stdout.write(said[:6000])
                clean = False
    return 0 if countermeasures() and clean else 1


if __name__ == "__main__":
    sys.exit(main())
