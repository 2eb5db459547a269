#!/usr/bin/env python3
"""Cycles, rates and the lock's price on the simulated card, for the 16x16 and the 64x64 build.

Every row is one start of `latchkey bench`: the same workload, array and memory model on the unlocked
elaboration and locked. Counts are the kernel's own counters; memory timing is modelled. Standard
library only. --json FILE writes the figures (schema: docs/figures.md).
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
MEMORIES = ["ideal", "ddr4-2400", "hbm"]
# What is held: (workload, memory, quantity, bound, at least or at most). On both array sizes.
BOUNDS = [("fc", "ideal", "beats_per_cycle", 0.95, ">="), ("gemm", "ideal", "array_busy", 0.85, ">="),
          ("fashion_mlp", None, "ratio", 1.02, "<="), ("fashion_lenet", None, "ratio", 1.02, "<=")]


class Bench:
    def __init__(self, build):
        self.tool = pathlib.Path(build).resolve() / "bin" / "latchkey"
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-bench-"))
        self.env = dict(os.environ, LATCHKEY_STATE_DIR=str(self.work / "state"))
        (self.work / "pass").write_text("bench passphrase\n")

    def latchkey(self, *words):
        run = subprocess.run([str(self.tool), "--json", *map(str, words)], env=self.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if run.returncode:
            sys.exit(f"bench: latchkey {' '.join(map(str, words))}:\n{run.stderr}")
        return json.loads(run.stdout)

    def measure(self, workload, name, array, memory):
        result = self.latchkey("bench", workload, "--device", f"sim:7,memory={memory}", "--record",
                               self.work / "card.lkd", "--passphrase-file", self.work / "pass",
                               "--array", array)
        locked, unlocked = result["locked"], result["unlocked"]
        cycles = locked["cycles"]
        row = {"workload": name, "array_n": array, "memory": memory, "images": result["images"],
               "cycles_locked": cycles, "cycles_unlocked": unlocked["cycles"],
               "ratio": result["ratio"], "key_setup_cycles": result["key_setup_cycles"],
               "macs": locked["macs"], "macs_expected": locked["macs_expected"],
               "utilisation": locked["macs"] / (array * array * cycles),
               "array_busy": locked["stalls"]["array_busy"] / cycles,
               "beats_per_cycle": locked["beats"] / cycles,
               "stalls_locked": locked["stalls"], "stalls_unlocked": unlocked["stalls"],
               "kilocycles_per_second": cycles / 1000 / locked["seconds"]}
        print(f"{name:<14} {array:>3} {memory:<10} {cycles:>10,} {row['cycles_unlocked']:>10,} "
              f"{row['ratio']:>8.4f} {row['array_busy']:>7.3f} {row['utilisation']:>7.3f} "
              f"{row['beats_per_cycle']:>7.3f} {row['kilocycles_per_second']:>8.0f}", flush=True)
        return row


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("--array", type=int, nargs="+", default=[16, 64], help="array sizes (default 16 64)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures")
    args = parser.parse_args()
    bench = Bench(args.build)
    rows, missed = [], []
    try:
        bench.latchkey("enroll", "--device", "sim:7", "--record", bench.work / "card.lkd",
                       "--passphrase-file", bench.work / "pass")
        print(f"{'workload':<14} {'N':>3} {'memory':<10} {'locked':>10} {'unlocked':>10} {'ratio':>8} "
              f"{'busy':>7} {'MACs/pk':>7} {'beats/c':>7} {'kcycle/s':>8}")
        for array in args.array:
            workloads = [("fc", "fc"), ("gemm", "gemm")]
            for name in ("fashion_mlp", "fashion_lenet"):
                program = bench.work / f"{name}-{array}.lkm"
                bench.latchkey("compile", ROOT / "models" / f"{name}.onnx", "-o", program, "--array",
                               array, "--calibrate", DATA / "train-images-idx3-ubyte.gz")
                workloads.append((program, name))
            for workload, name in workloads:
                for memory in MEMORIES:
                    row = bench.measure(workload, name, array, memory)
                    rows.append(row)
                    if row["macs"] != row["macs_expected"]:
                        missed.append(f"{name} N={array}: MAC counter {row['macs']}, compiled "
                                      f"{row['macs_expected']}")
                    for cause in ("locked", "unlocked"):
                        if sum(row[f"stalls_{cause}"].values()) != row[f"cycles_{cause}"]:
                            missed.append(f"{name} N={array}: {cause} causes do not add up")
                    for which, where, quantity, bound, sense in BOUNDS:
                        good = row[quantity] >= bound if sense == ">=" else row[quantity] <= bound
                        if which == name and where in (None, memory) and not good:
                            missed.append(f"{name} N={array} {memory}: {quantity} {row[quantity]:.4f}, "
                                          f"wanted {sense} {bound}")
        print("\nlocked, unlocked: cycles of one start (64 images for the networks, 1 for fc 1x4096x4096 and "
              "gemm 512x2048x1024)\nbusy: share of cycles in which the array took a row; MACs/pk: useful MACs "
              "over the array's peak; beats/c: weight\nbeats per cycle, tags included. Counters are the RTL's; "
              "memory timing is a model; key set-up "
              f"({rows[0]['key_setup_cycles']:,} cycles, once per session) is not in the ratio.")
        for what in missed:
            print(f"MISSED {what}")
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"schema": 1, "rows": rows, "missed": missed},
                                                          indent=2) + "\n")
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
