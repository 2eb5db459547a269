#!/usr/bin/env python3
"""Time the networks of build.py with onnxruntime on this machine's CPU.

    bench/networks/run cpu_time.py [resnet50 ...] [--threads 1] [--int8] [--json FILE]

One image a call, the median of --runs calls after two that are not counted. --int8 quantises with
onnxruntime's own tool (QDQ, int8 weights per channel, uint8 activations) on four inputs first.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time

import onnxruntime

import build


def cpu_name():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        lines = f.read().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    vnni = " with AVX512-VNNI" if "avx512_vnni" in flags else ""
    return f"{names[0] if names else platform.machine()}{vnni}"


class Inputs:
    """Inputs one by one, as onnxruntime.quantization wants them."""

    def __init__(self, entry, inputs):
        self.rest = iter([{entry: x[None]} for x in inputs])

    def get_next(self):
        return next(self.rest, None)


def quantised(network, entry):
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "float.onnx"), os.path.join(folder, "int8.onnx")
        with open(source, "wb") as f:
            f.write(network.file)
        quantize_static(source, target, Inputs(entry, build.real(network.inputs(2, 4))),
                        quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        extra_options={"WeightSymmetric": True})
        with open(target, "rb") as f:
            return f.read()


def session(data, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def measure(run, runs):
    for _ in range(2):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="network",
                        help=f"{', '.join(build.NETWORKS)} (all)")
    build.add_network_options(parser)
    parser.add_argument("--threads", type=build.positive, default=1)
    parser.add_argument("--runs", type=build.positive, default=11)
    parser.add_argument("--int8", action="store_true", help="quantise before timing")
    parser.add_argument("--json", metavar="FILE", help="also write the figures")
    args = parser.parse_args()
    unknown = set(args.networks) - set(build.NETWORKS)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    kind, cpu = "int8" if args.int8 else "float32", cpu_name()
    print(f"onnxruntime {onnxruntime.__version__}, {kind}, {args.threads} thread(s), {cpu}")
    print(f"{'network':<14} {'ms':>9} {'images/s':>9} {'GMAC/s':>8}")
    rows = []
    for name in args.networks or build.NETWORKS:
        network = build.from_options(name, args)
        entry = "hidden" if name == "bert" else "image"
        data = quantised(network, entry) if args.int8 else network.file
        s = session(data, args.threads)
        feed = {entry: build.real(network.inputs(1, 1))}
        seconds = measure(lambda: s.run(None, feed), args.runs)
        rows.append({"network": name, "kind": kind, "threads": args.threads, "runs": args.runs,
                     "seconds": seconds, "macs": network.macs,
                     "gmac_per_second": network.macs / seconds / 1e9})
        print(f"{name:<14} {1000 * seconds:>9.2f} {1 / seconds:>9.1f} "
              f"{rows[-1]['gmac_per_second']:>8.1f}", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"schema": 1, "cpu": cpu, "onnxruntime": onnxruntime.__version__,
                       "rows": rows}, f, indent=2)
            f.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
