#!/usr/bin/env python3
"""Cycles, rates and the lock's price on the simulated card.

    ./dev bench             workloads that show a rate, on the 16x16 and the 64x64 build, held to bounds
    ./dev bench networks    whole networks on the 64x64 build: cycles, utilisation, stalls, frames a second

Every row is one start of `latchkey bench`: the same workload, array and memory model on the unlocked
elaboration and locked. Counts are the kernel's own counters; memory timing is modelled. Standard
library only. --json FILE writes the figures (schema: docs/figures.md); networks --html FILE a page with
plots, and --cpu times onnxruntime on this machine beside them (installed from PyPI into .cache).
"""
import argparse
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import page

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
MEMORIES = ["ideal", "ddr4-2400", "hbm"]
# What is held: (workload, memory, quantity, bound, at least or at most). On both array sizes.
BOUNDS = [("fc", "ideal", "beats_per_cycle", 0.95, ">="), ("gemm", "ideal", "array_busy", 0.85, ">="),
          ("fashion_mlp", None, "ratio", 1.02, "<="), ("fashion_lenet", None, "ratio", 1.02, "<=")]


# The networks: file in models/ or name for bench/networks/build.py, and images of the starts.
COMMITTED = {"digits_mlp": [64], "fashion_mlp": [64], "fashion_lenet": [64], "fashion_resnet8": [64]}
BUILT = {"resnet50": [1, 4], "mobilenet_v1": [1, 4], "mobilenet_v2": [1, 4], "bert": [1, 4]}
# Least utilisation that is held, by network and images, with ideal memory on the 64x64 array.
UTILISATION = {("resnet50", 1): 0.80, ("resnet50", 4): 0.90, ("mobilenet_v1", 1): 0.70,
               ("mobilenet_v2", 1): 0.40, ("mobilenet_v2", 4): 0.45, ("bert", 1): 0.90, ("bert", 4): 0.90}
# Most cycles of a locked start over those of an unlocked one, on every network; and what memory other than
# ideal may add once to a start, which shows on one of some thousand cycles only: a refresh, or an image's
# latency, that another phase meets.
LOCK_RATIO, LOCK_PHASE = 1.005, 128
CLOCK_HZ = 300e6  # The simulated card's setting; no vendor tool has timed the RTL.

UNSUPPORTED = 4  # Exit code of the tool for a model that uses what the accelerator has not got.


class Unsupported(Exception):
    """The compiler's reason."""


class Bench:
    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.tool = self.build / "bin" / "latchkey"
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-bench-"))
        self.env = dict(os.environ, LATCHKEY_STATE_DIR=str(self.work / "state"))
        (self.work / "pass").write_text("bench passphrase\n")

    def latchkey(self, *words):
        run = subprocess.run([str(self.tool), "--json", *map(str, words)], env=self.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if run.returncode == UNSUPPORTED:
            raise Unsupported(json.loads(run.stdout)["error"]["message"])
        if run.returncode:
            sys.exit(f"bench: latchkey {' '.join(map(str, words))}:\n{run.stderr}")
        return json.loads(run.stdout)

    def enroll(self):
        self.latchkey("enroll", "--device", "sim:7", "--record", self.work / "card.lkd",
                      "--passphrase-file", self.work / "pass")

    def run(self, workload, name, array, memory, images=64):
        """Figures of one start of the workload, locked and unlocked."""
        result = self.latchkey("bench", workload, "--device", f"sim:7,memory={memory}", "--record",
                               self.work / "card.lkd", "--passphrase-file", self.work / "pass",
                               "--array", array, "--images", images)
        locked, unlocked = result["locked"], result["unlocked"]
        cycles = locked["cycles"]
        return {"workload": name, "array_n": array, "memory": memory, "images": result["images"],
               "cycles_locked": cycles, "cycles_unlocked": unlocked["cycles"],
               "ratio": result["ratio"], "key_setup_cycles": result["key_setup_cycles"],
               "macs": locked["macs"], "macs_expected": locked["macs_expected"],
               "macs_useful": locked["macs_useful"],
               "utilisation": locked["macs_useful"] / (array * array * cycles),
               "array_busy": locked["stalls"]["array_busy"] / cycles,
               "beats_per_cycle": locked["beats"] / cycles, "bytes_read": 64 * locked["beats"],
               "stalls_locked": locked["stalls"], "stalls_unlocked": unlocked["stalls"],
               "kilocycles_per_second": cycles / 1000 / locked["seconds"]}

    def measure(self, workload, name, array, memory):
        row = self.run(workload, name, array, memory)
        cycles = row["cycles_locked"]
        print(f"{name:<14} {array:>3} {memory:<10} {cycles:>10,} {row['cycles_unlocked']:>10,} "
              f"{row['ratio']:>8.4f} {row['array_busy']:>7.3f} {row['utilisation']:>7.3f} "
              f"{row['beats_per_cycle']:>7.3f} {row['kilocycles_per_second']:>8.0f}", flush=True)
        return row


def disagreements(row):
    """What a run's counters must agree on, whatever ran."""
    where = f"{row['workload']} N={row['array_n']} {row['memory']}"
    if row["macs"] != row["macs_expected"]:
        yield f"{where}: MAC counter {row['macs']}, compiled {row['macs_expected']}"
    for build in ("locked", "unlocked"):
        if sum(row[f"stalls_{build}"].values()) != row[f"cycles_{build}"]:
            yield f"{where}: {build} causes do not add up"


def too_low(row):
    """What a network's figures miss of what is held."""
    where = f"{row['workload']} N={row['array_n']} {row['memory']}, {row['images']} images"
    least = UTILISATION.get((row["workload"], row["images"]), 0)
    if row["array_n"] == 64 and row["memory"] == "ideal" and row["utilisation"] < least:
        yield f"{where}: utilisation {row['utilisation']:.4f}, below {least}"
    phase = 0 if row["memory"] == "ideal" else LOCK_PHASE
    if row["cycles_locked"] > LOCK_RATIO * row["cycles_unlocked"] + phase:
        yield (f"{where}: locked {row['cycles_locked']:,} cycles, unlocked {row['cycles_unlocked']:,}, "
               f"above {LOCK_RATIO} times and {phase}")


def rates(bench, args):
    rows, missed = [], []
    print(f"{'workload':<14} {'N':>3} {'memory':<10} {'locked':>10} {'unlocked':>10} {'ratio':>8} "
          f"{'busy':>7} {'MACs/pk':>7} {'beats/c':>7} {'kcycle/s':>8}")
    for array in args.array or [16, 64]:
        workloads = [("fc", "fc"), ("gemm", "gemm")]
        for name in ("fashion_mlp", "fashion_lenet"):
            program = bench.work / f"{name}-{array}.lkm"
            bench.latchkey("compile", ROOT / "models" / f"{name}.onnx", "-o", program, "--array",
                           array, "--calibrate", DATA / "train-images-idx3-ubyte.gz")
            workloads.append((program, name))
        for workload, name in workloads:
            for memory in args.memory:
                row = bench.measure(workload, name, array, memory)
                rows.append(row)
                missed += disagreements(row)
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
    return {"schema": 1, "rows": rows, "missed": missed}


def network_files(bench, name):
    """The network's ONNX file and images to calibrate with; built first when it is not committed."""
    if name in COMMITTED:
        images = (ROOT / "models/digits-train-images-idx3-ubyte.gz" if name == "digits_mlp"
                  else DATA / "train-images-idx3-ubyte.gz")
        return ROOT / "models" / f"{name}.onnx", images
    folder = bench.build / "networks"
    model = folder / f"{name}.onnx"
    images = folder / (f"{name}-inputs.npy" if name == "bert" else f"{name}-images-idx4-ubyte")
    if not model.exists() or not images.exists():
        print(f"building {name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["/usr/bin/python3", str(ROOT / "bench/networks/build.py"), name, "--out",
                        str(folder)], stdout=subprocess.DEVNULL, check=True)
    return model, images


def anchors(network):
    """Published figures of other accelerators for this network, those whose source was read."""
    path = ROOT / "bench/networks/anchors.json"
    if not path.exists():
        return []
    return [a for a in json.loads(path.read_text())["anchors"]
            if a["network"] == network and a["verified"] and "utilisation" in a]


def cpu_times(bench, names):
    """onnxruntime's times of the built networks on this machine, one thread, float32."""
    figures = bench.work / "cpu.json"
    subprocess.run([str(ROOT / "bench/networks/run"), "cpu_time.py", *names, "--json", str(figures)],
                   stdout=subprocess.DEVNULL, check=True)
    return json.loads(figures.read_text())


def networks(bench, args):
    rows, missed, refused = [], [], []
    cpu = None
    images_of = {**COMMITTED, **BUILT}
    wanted = args.network or [*COMMITTED, *(BUILT if (ROOT / "bench/networks/build.py").exists() else ())]
    print(f"{'network':<14} {'N':>3} {'memory':<10} {'images':>6} {'locked':>12} {'unlocked':>12} {'ratio':>7} "
          f"{'MACs/pk':>7} {'beats/c':>7} {'MB read':>8} {'frames/s':>10} {'kcycle/s':>8}  where the other cycles go")
    for name in wanted:
        model, images = network_files(bench, name)
        for array in args.array or [64]:
            program = bench.work / f"{name}-{array}.lkm"
            try:
                compiled = bench.latchkey("compile", model, "-o", program, "--array", array,
                                          "--calibrate", images)
            except Unsupported as e:
                refused.append({"network": name, "array_n": array, "reason": str(e)})
                print(f"{name:<14} {array:>3} not compiled: {e}", flush=True)
                continue
            batches = [args.images] if args.images else images_of[name]
            counts = sorted({min(count, compiled["max_batch"]) for count in batches})
            for count, memory in itertools.product(counts, args.memory):
                row = bench.run(program, name, array, memory, count)
                row["frames_per_second"] = CLOCK_HZ * count / row["cycles_locked"]
                row["macs_per_frame"] = compiled["macs"]
                rows.append(row)
                missed += disagreements(row)
                missed += too_low(row)
                stalls = sorted(((v, k) for k, v in row["stalls_locked"].items()
                                 if k != "array_busy" and v), reverse=True)
                where = ", ".join(f"{k} {v / row['cycles_locked']:.0%}" for v, k in stalls[:3])
                print(f"{name:<14} {array:>3} {memory:<10} {count:>6} {row['cycles_locked']:>12,} "
                      f"{row['cycles_unlocked']:>12,} {row['ratio']:>7.4f} {row['utilisation']:>7.3f} "
                      f"{row['beats_per_cycle']:>7.3f} {row['bytes_read'] / 1e6:>8.1f} "
                      f"{row['frames_per_second']:>10,.1f} {row['kilocycles_per_second']:>8.0f}  {where}",
                      flush=True)
        for a in anchors(name):
            print(f"    {a['utilisation']:.3f} of its peak: {a['accelerator']}, {a['configuration']}; "
                  f"{a['how']} ({a['source']})")
    built = [name for name in wanted if name in BUILT]
    if args.cpu and built:
        cpu = cpu_times(bench, built)
        print(f"\nonnxruntime {cpu['onnxruntime']}, float32, one thread, {cpu['cpu']}, images/s: " +
              ", ".join(f"{r['network']} {1 / r['seconds']:,.1f}" for r in cpu["rows"]))
    print("\nMACs/pk: useful MACs over the array's peak, of the locked start; beats/c: weight beats per "
          "cycle, tags included; MB read: those beats;\nframes/s: images of a start over its cycles at 300 MHz, one card, key set-up "
          "and host link not in it.\nCounters are the RTL's; the clock is the simulated card's setting and "
          "memory timing is a model. Lines below a network:\npublished figures of other accelerators, from "
          "bench/networks/anchors.json, where their sources and terms are.")
    used = {name: anchors(name) for name in wanted if anchors(name)}
    return {"schema": 1, "clock_hz": CLOCK_HZ, "rows": rows, "anchors": used, "refused": refused,
            "missed": missed, "cpu": cpu}


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("what", nargs="?", choices=["rates", "networks"], default="rates",
                        help="rates (default) or networks")
    parser.add_argument("--array", type=int, nargs="+", choices=[16, 64],
                        help="array sizes (default: 16 64 for rates, 64 for networks)")
    parser.add_argument("--memory", nargs="+", choices=MEMORIES, default=MEMORIES,
                        help="memory presets (default: all)")
    parser.add_argument("--network", nargs="+", choices=[*COMMITTED, *BUILT],
                        help="networks: only these")
    parser.add_argument("--images", type=int, help="networks: images of a start (default: 64, or 1 and 4 "
                        "for those of bench/networks)")
    parser.add_argument("--cpu", action="store_true",
                        help="networks: time those of bench/networks with onnxruntime on this CPU too")
    parser.add_argument("--html", metavar="FILE", help="networks: also write a page with plots")
    parser.add_argument("--json", metavar="FILE", help="also write the figures")
    args = parser.parse_args()
    if args.what == "rates" and (args.network or args.images or args.cpu or args.html):
        parser.error("--network, --images, --cpu and --html belong to networks")
    if args.images is not None and args.images < 1:
        parser.error("--images: at least 1")
    bench = Bench(args.build)
    try:
        bench.enroll()
        figures = networks(bench, args) if args.what == "networks" else rates(bench, args)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    for what in figures["missed"]:
        print(f"MISSED {what}")
    if args.html:
        pathlib.Path(args.html).write_text(page.page(figures), encoding="utf-8")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if figures["missed"] else 0)


if __name__ == "__main__":
    main()
