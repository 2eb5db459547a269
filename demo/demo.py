#!/usr/bin/env python3
"""The demo: what a model owner and a card's operator would type, on real images, then the cheats.

Everything runs through the latchkey tool on the simulated card; nothing is computed here but sums.
Standard library only. --json FILE writes the figures (schema: docs/figures.md).
"""
import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
TTY = sys.stdout.isatty()
BOLD, DIM, GREEN, RED, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if TTY else ("",) * 5
NETWORKS = [("fashion_mlp", "MLP 784-256-128-10", 89.0), ("fashion_lenet", "LeNet 5x5 16/32", 92.0)]


class Demo:
    def __init__(self, args):
        self.tool = pathlib.Path(args.build).resolve() / "bin" / "latchkey"
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-demo-"))
        self.env = dict(os.environ, LATCHKEY_STATE_DIR=str(self.work / "state"))
        self.images = args.images
        self.figures = {"schema": 1, "card": "simulated: memory and silicon are models; kernel is the "
                        "shipped RTL under Verilator", "networks": {}, "refusals": []}
        self.failed = []
        (self.work / "pass").write_text("demo passphrase\n")

    def latchkey(self, *words, check=True):
        """Runs the tool with --json; returns (exit code, result object, text for people)."""
        run = subprocess.run([str(self.tool), "--json", *map(str, words)], env=self.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if check and run.returncode:
            sys.stderr.write(run.stderr)
            sys.exit(f"demo: latchkey {words[0]} failed with exit code {run.returncode}")
        return run.returncode, json.loads(run.stdout or "{}"), run.stderr

    def step(self, title):
        print(f"\n{BOLD}{title}{OFF}", flush=True)

    def show(self, text):
        for line in text.replace(f"{self.work}/", "").splitlines():
            if line.strip() and not line.startswith(("running:", "locked:", "unlocked:", "evaluating:", "Running pass")):
                print(f"   {line}", flush=True)

    def expect(self, good, what):
        if not good:
            self.failed.append(what)
        return good

    # --- the honest way ------------------------------------------------------------------------
    def enroll(self, seed):
        record = self.work / f"card{seed}.lkd"
        _, result, text = self.latchkey("enroll", "--device", f"sim:{seed}", "--record", record,
                                        "--passphrase-file", self.work / "pass")
        self.show(text)
        return record, result

    def network(self, name, title, floor, record):
        images, labels = DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz"
        program, package = self.work / f"{name}.lkm", self.work / f"{name}.lkx"
        reference = self.work / f"{name}.ref"
        self.step(f"{title}: compile, seal, run")
        _, compiled, text = self.latchkey(
            "compile", ROOT / "models" / f"{name}.onnx", "-o", program, "--calibrate",
            DATA / "train-images-idx3-ubyte.gz", "--evaluate", images, "--labels", labels,
            "--reference-output", reference)
        self.show(text)
        _, sealed, text = self.latchkey("lock", program, "--record", record, "-o", package,
                                        "--passphrase-file", self.work / "pass")
        self.show(text)
        started = time.monotonic()
        code, ran, text = self.latchkey(
            "run", package, "--record", record, "--device", "sim:7", "--images", images, "--labels",
            labels, "--count", self.images, "--expect", reference, check=False)
        seconds = time.monotonic() - started
        self.show(text)
        if code:
            self.expect(False, f"{title}: the locked run failed with exit code {code}")
            return package
        # The price: one start of 64 images on both elaborations.
        _, bench, text = self.latchkey("bench", program, "--device", "sim:7", "--record", record,
                                       "--images", 64, "--passphrase-file", self.work / "pass")
        print(f"   one start of 64 images: {bench['locked']['cycles']:,} cycles locked, "
              f"{bench['unlocked']['cycles']:,} on the unlocked elaboration: ratio {bench['ratio']:.4f} "
              f"(+ {bench['key_setup_cycles']:,} cycles of key set-up, once per session)", flush=True)
        counters, evaluation = ran["counters"], compiled["evaluation"]
        self.figures["networks"][name] = {
            "images": ran["images"], "top1_rtl": ran["top1"], "top1_int8": evaluation["top1_int8"],
            "top1_fp32": evaluation["top1_fp32"], "reference_images": evaluation["images"],
            "logits_compared": ran["compared"], "logits_differing": ran["differing"],
            "cycles_run": counters["cycles"], "macs": counters["macs"],
            "macs_expected": ran["macs_expected"], "stalls": counters["stalls"],
            "weight_bytes": compiled["weight_bytes"], "pages": compiled["pages"],
            "seconds_of_simulation": round(seconds, 2),
            "lock_price": {"images": 64, "cycles_locked": bench["locked"]["cycles"],
                           "cycles_unlocked": bench["unlocked"]["cycles"], "ratio": bench["ratio"],
                           "key_setup_cycles": bench["key_setup_cycles"],
                           "stalls_locked": bench["locked"]["stalls"],
                           "stalls_unlocked": bench["unlocked"]["stalls"]}}
        self.expect(ran["differing"] == 0, f"{title}: {ran['differing']} logits differ")
        self.expect(ran["images"] >= 1000 or self.images < 1000, f"{title}: too few images")
        self.expect(counters["macs"] == ran["macs_expected"], f"{title}: MAC counter")
        self.expect(sum(counters["stalls"].values()) == counters["cycles"], f"{title}: counters' sum")
        self.expect(evaluation["top1_int8"] >= floor, f"{title}: int8 top-1 below {floor} %")
        self.expect(bench["ratio"] <= 1.02, f"{title}: the lock costs more than 2 %")
        return package

    # --- the cheats ----------------------------------------------------------------------------
    def refuse(self, case, package, record, device="sim:7", extra=()):
        code, result, text = self.latchkey(
            "run", package, "--record", record, "--device", device, "--images",
            DATA / "t10k-images-idx3-ubyte.gz", "--count", 8, "-o", self.work / "stolen", *extra,
            check=False)
        error = result.get("error", {})
        # A refusal before the start leaves nothing to release; a run reports what the card wrote.
        released = error.get("released_bytes", 0) or (self.work / "stolen").exists()
        refused = code != 0 and not released
        (self.work / "stolen").unlink(missing_ok=True)
        self.expect(refused, f"not refused: {case}")
        reason = error.get("message", text.strip().splitlines()[-1] if text.strip() else "")
        self.figures["refusals"].append({"case": case, "exit_code": code, "reason": reason,
                                         "refused_by": "chip" if "--skip-host-checks" in extra or "page" in
                                         reason and "authentication" in reason else "host",
                                         "output_released": bool(released)})
        mark = f"{GREEN}refused{OFF}" if refused else f"{RED}NOT REFUSED{OFF}"
        shown = reason.replace(f"{self.work}/", "")
        print(f"   {mark}  {case}\n            {DIM}exit {code}: {shown}{OFF}", flush=True)

    def variant(self, package, name, change):
        data = bytearray(package.read_bytes())
        change(data)
        path = self.work / name
        path.write_bytes(data)
        return path

    def cheats(self, package, record):
        header = struct.unpack_from("<Q", package.read_bytes(), 8)[0]
        pages = struct.unpack_from("<Q", package.read_bytes(), 16)[0]
        manifest = 64 + header
        tags = manifest + 128 + 56
        body = tags + 16 * pages
        flip = lambda at: lambda data: data.__setitem__(at, data[at] ^ 0x10)

        self.step("Now cheat: another chip, and one flipped bit at a time")
        other, _ = self.enroll(8)
        self.refuse("the package on another card", package, other, "sim:8")
        self.refuse("the package and its record on another card", package, record, "sim:8")

        def forge(data):  # the other card's id into the manifest and past the host's checks
            blob = json.loads(other.read_text())
            helper = self.helper_of(blob)
            data[manifest + 32:manifest + 48] = helper[8:24]
        forged = self.variant(package, "forged.lkx", forge)
        bypass = ("--skip-host-checks",)
        self.refuse("another card, device id forged, host checks bypassed", forged, other, "sim:8", bypass)
        last = body + 4096 * (pages - 1) + 777
        self.refuse("one bit of a weight tile", self.variant(package, "tile.lkx", flip(last)), record)
        self.refuse("one bit of a weight tile, host checks bypassed",
                    self.variant(package, "tile.lkx", flip(last)), record, extra=bypass)
        self.refuse("one bit of a tag", self.variant(package, "tag.lkx", flip(tags + 16 * (pages - 1) + 3)), record)
        self.refuse("two tiles exchanged", self.variant(package, "swap.lkx", lambda d: self.swap(
            d, body + 4096 * (pages - 1), body + 4096 * (pages - 2))), record)
        self.refuse("one bit of the header", self.variant(package, "header.lkx", flip(80)), record)
        self.refuse("one bit of the manifest, host checks bypassed",
                    self.variant(package, "manifest.lkx", flip(manifest + 24)), record, extra=bypass)
        self.refuse("one bit of the wrapped key, host checks bypassed",
                    self.variant(package, "key.lkx", flip(manifest + 130)), record, extra=bypass)
        self.refuse("one bit of the helper data", package, self.flip_helper(record, 900), extra=bypass)
        code, result, _ = self.latchkey("enroll", "--device", "sim:7", "--record", self.work / "again.lkd",
                                        "--passphrase-file", self.work / "pass", check=False)
        self.figures["refusals"].append({"case": "enrolling the same chip twice", "exit_code": code,
                                         "reason": result["error"]["message"], "refused_by": "chip",
                                         "output_released": (self.work / "again.lkd").exists()})
        self.expect(code == 8, "the chip was enrolled twice")
        print(f"   {GREEN if code == 8 else RED}refused{OFF}  enrolling the same chip twice\n"
              f"            {DIM}exit {code}: {result['error']['message']}{OFF}")

    @staticmethod
    def swap(data, a, b):
        data[a:a + 4096], data[b:b + 4096] = data[b:b + 4096], data[a:a + 4096]

    @staticmethod
    def helper_of(record):
        import base64
        return base64.b64decode(record["public"]["helper"])

    def flip_helper(self, record, at):
        import base64
        blob = json.loads(record.read_text())
        helper = bytearray(self.helper_of(blob))
        helper[at] ^= 0x10
        blob["public"]["helper"] = base64.b64encode(helper).decode()
        path = self.work / "flipped.lkd"
        path.write_text(json.dumps(blob))
        return path

    # --- the end -------------------------------------------------------------------------------
    def summary(self, seconds):
        self.step("Summary")
        print(f"   {'network':<20} {'images':>7} {'float32':>8} {'int8':>8} {'RTL':>8} {'logits':>8} "
              f"{'differ':>6} {'locked/unlocked':>16}")
        for name, title, _ in NETWORKS:
            n = self.figures["networks"].get(name)
            if n:
                print(f"   {title:<20} {n['images']:>7,} {n['top1_fp32']:>7.2f}% {n['top1_int8']:>7.2f}% "
                      f"{n['top1_rtl']:>7.2f}% {n['logits_compared']:>8,} {n['logits_differing']:>6} "
                      f"{n['lock_price']['ratio']:>16.4f}")
        print(f"   {DIM}float32 and int8: top-1 on all 10,000 test images; RTL: on the images it ran{OFF}")
        refused = sum(not r["output_released"] and r["exit_code"] != 0 for r in self.figures["refusals"])
        print(f"   {refused} of {len(self.figures['refusals'])} cheats refused, no output byte released")
        print(f"   {DIM}simulated card: the RTL is what ships; memory (ddr4-2400) and silicon are models. A "
              f"simulated PUF proves protocol and coding, not entropy.{OFF}")
        print(f"   {seconds:.0f} s")
        for what in self.failed:
            print(f"   {RED}FAILED{OFF} {what}")
        self.figures["seconds"] = round(seconds, 1)
        self.figures["failed"] = self.failed


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=1000, help="test images per network (default 1000)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures")
    args = parser.parse_args()
    started = time.monotonic()
    demo = Demo(args)
    try:
        print(f"{BOLD}Latchkey demo{OFF}: a real network, locked to one simulated card")
        demo.step("Enrol the chip of card sim:7")
        record, enrolled = demo.enroll(7)
        demo.figures["enrolment"] = {k: enrolled[k] for k in ("device", "device_id", "margin", "silicon")}
        for name, title, floor in NETWORKS:
            package = demo.network(name, title, floor, record)
        demo.cheats(package, record)
        demo.summary(time.monotonic() - started)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(demo.figures, indent=2) + "\n")
            print(f"   figures: {args.json}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(demo.work, ignore_errors=True)
    sys.exit(1 if demo.failed else 0)


if __name__ == "__main__":
    main()
