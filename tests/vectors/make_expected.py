#!/usr/bin/env python3
"""Write the logits that ONNX Runtime computes for quantised models.

    python3 tests/vectors/make_expected.py --qdump build/tests/host/model/latchkey_qdump [--check]

Needs onnx, onnxruntime, numpy and sympy from PyPI (the committed files: onnxruntime 1.32, onnx
1.23). Each quantised graph is written as an ONNX model of integer operators (QLinearConv, MaxPool,
Clip, com.microsoft's QLinearAdd and QLinearGlobalAveragePool), a fully connected layer as a
flattening Reshape and a 1x1 QLinearConv, because QLinearMatMul has no bias. Every model runs with
and without graph optimisation; the two must agree.

ONNX Runtime multiplies bytes exactly only with the AVX512-VNNI instructions (or without SIMD):
older x86 code saturates sums of two products at 16 bits. The script refuses to run without them.

It also quantises the digits with ONNX Runtime's own tool, in both of its formats, and writes these
files (digits_mlp_qdq.onnx, digits_mlp_qoperator.onnx) and what ONNX Runtime makes of them.

Output: <model>.expected.json with the quantisation of every tensor, so that a test can tell a
changed calibration from a wrong executor, the SHA-256 of all images' output bytes, and the bytes of
the first images in hexadecimal.
"""

import argparse
import gzip
import hashlib
import json
import os
import struct
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FASHION = os.environ.get("LATCHKEY_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")

# model, calibration set, calibration images, test images, images to run, images kept in full, percentile
CASES = [
    ("digits_mlp", f"{ROOT}/models/digits-train", 256, f"{ROOT}/models/digits-test", 360, 360, None),
    ("fashion_mlp", f"{FASHION}/train", 256, f"{FASHION}/t10k", 10000, 500, None),
    ("fashion_lenet", f"{FASHION}/train", 256, f"{FASHION}/t10k", 10000, 500, None),
    ("fashion_resnet8", f"{FASHION}/train", 256, f"{FASHION}/t10k", 10000, 500, None),
]


def read_idx(path):
    with gzip.open(path, "rb") as f:
        data = f.read()
    rank = data[3]
    shape = struct.unpack(f">{rank}I", data[4:4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def qoperator_model(graph):
    nodes, weights = [], []

    def constant(name, array):
        weights.append(numpy_helper.from_array(array, name))
        return name

    quant = {}
    for i, t in enumerate(graph["tensors"]):
        quant[i] = (constant(f"s{i}", np.array(float.fromhex(t["scale"]), np.float32)),
                    constant(f"z{i}", np.array(t["zero_point"], np.uint8)))
    for n, node in enumerate(graph["nodes"]):
        src, dst = node["inputs"][0], node["output"]
        c, h, w = graph["tensors"][src]["shape"]
        x, y = f"t{src}", f"t{dst}"
        if node["op"] == "maxpool":
            nodes.append(helper.make_node("MaxPool", [x], [y], kernel_shape=node["kernel"],
                                          strides=node["strides"], pads=node["pads"]))
            continue
        lo, hi = node["clamp"]
        clamped = (lo, hi) != (0, 255)
        result = f"u{n}" if clamped else y
        if clamped:
            clip = helper.make_node("Clip", [result, constant(f"lo{n}", np.array(lo, np.uint8)),
                                             constant(f"hi{n}", np.array(hi, np.uint8))], [y])
        if node["op"] == "add" and not (node["negate"] or node["broadcast"]):
            other = node["inputs"][1]
            nodes.append(helper.make_node("QLinearAdd", [x, *quant[src], f"t{other}", *quant[other],
                                                         *quant[dst]], [result],
                                          domain="com.microsoft"))
            nodes += [clip] if clamped else []
            continue
        if node["op"] == "avgpool" and node["kernel"] == [h, w]:
            nodes.append(helper.make_node("QLinearGlobalAveragePool", [x, *quant[src], *quant[dst]],
                                          [result], domain="com.microsoft"))
            nodes += [clip] if clamped else []
            continue
        if node["op"] not in ("conv", "fc"):
            raise SystemExit(f"{node['name']}: '{node['op']}' has no counterpart in ONNX Runtime")
        outs, ins = node["channels"]
        shape = [outs, ins, *node["kernel"]]
        attributes = dict(kernel_shape=node["kernel"], strides=node["strides"], pads=node["pads"])
        if node["op"] == "fc":
            shape = [outs, c * h * w, 1, 1]
            attributes = dict(kernel_shape=[1, 1])
            nodes.append(helper.make_node(
                "Reshape", [x, constant(f"r{n}", np.array([0, -1, 1, 1], np.int64))], [f"f{n}"]))
            x = f"f{n}"
        scales = np.array([float.fromhex(s) for s in node["weight_scale"]], np.float32)
        nodes.append(helper.make_node(
            "QLinearConv",
            [x, *quant[src], constant(f"w{n}", np.array(node["weights"], np.int8).reshape(shape)),
             constant(f"ws{n}", scales), constant(f"wz{n}", np.zeros(outs, np.int8)), *quant[dst],
             constant(f"b{n}", np.array(node["bias"], np.int32))],
            [result], **attributes))
        nodes += [clip] if clamped else []
    i, o = graph["input"]["tensor"], graph["output"]["tensor"]
    shapes = [["N", *graph["tensors"][k]["shape"]] for k in (i, o)]
    model = helper.make_model(
        helper.make_graph(nodes, graph["name"],
                          [helper.make_tensor_value_info(f"t{i}", TensorProto.UINT8, shapes[0])],
                          [helper.make_tensor_value_info(f"t{o}", TensorProto.UINT8, shapes[1])],
                          weights),
        opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(model, images, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    out = [session.run(None, {session.get_inputs()[0].name: images[i:i + 50]})[0]
           for i in range(0, len(images), 50)]
    return np.concatenate(out).reshape(len(images), -1)


class Calibration:
    """Images one by one, as onnxruntime.quantization wants them."""

    def __init__(self, images):
        self.rest = iter([{"image": image[None]} for image in images])

    def get_next(self):
        return next(self.rest, None)


def foreign(out):
    """ONNX Runtime's own quantised files of the digits. QDQ: signed activations, so that both
    kinds are covered."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    read = lambda part: (read_idx(f"{ROOT}/models/digits-{part}-images-idx3-ubyte.gz")
                         .astype(np.float32) / np.float32(255))[:, None]
    images = read("test")[:100]
    for form, kind in ((QuantFormat.QOperator, QuantType.QUInt8), (QuantFormat.QDQ, QuantType.QInt8)):
        name = f"digits_mlp_{form.name.lower()}"
        path = os.path.join(out, f"{name}.onnx")
        quantize_static(f"{ROOT}/models/digits_mlp.onnx", path, Calibration(read("train")[:256]),
                        quant_format=form, activation_type=kind, weight_type=QuantType.QInt8,
                        per_channel=form is QuantFormat.QDQ,
                        extra_options={"WeightSymmetric": True})
        with open(path, "rb") as f:
            logits = run(f.read(), images, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        doc = {"model": name, "onnxruntime": onnxruntime.__version__, "images": len(images),
               "logits": [[float(v).hex() for v in row] for row in logits]}
        with open(os.path.join(out, f"{name}.expected.json"), "w") as f:
            json.dump(doc, f, indent=0)
            f.write("\n")
        print(f"{name}: {len(images)} images, {os.path.getsize(path)} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qdump", required=True, help="the built latchkey_qdump")
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    args = parser.parse_args()
    with open("/proc/cpuinfo") as f:
        if "avx512_vnni" not in f.read():
            raise SystemExit("this CPU has no AVX512-VNNI: ONNX Runtime may saturate; not run")
    bad = 0
    for name, train, calibrate, test, count, kept, percentile in CASES:
        command = [args.qdump, f"{ROOT}/models/{name}.onnx", train, str(calibrate)]
        if percentile:
            command.append(str(percentile))
        graph = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        images = read_idx(f"{test}-images-idx3-ubyte.gz")[:count]
        first = graph["tensors"][graph["input"]["tensor"]]
        # The input takes byte / 255; quantise it as QuantizeLinear does.
        real = images.astype(np.float32) / np.float32(255)
        q = np.rint(real / np.float32(float.fromhex(first["scale"]))) + first["zero_point"]
        q = np.clip(q, 0, 255).astype(np.uint8).reshape(len(images), *first["shape"])
        model = qoperator_model(graph)
        levels = onnxruntime.GraphOptimizationLevel
        plain = run(model, q, levels.ORT_DISABLE_ALL)
        if not np.array_equal(plain, run(model, q, levels.ORT_ENABLE_ALL)):
            raise SystemExit(f"{name}: optimised and plain execution differ")
        with open(f"{ROOT}/models/{name}.onnx", "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        doc = {
            "model": name, "model_sha256": digest, "onnxruntime": onnxruntime.__version__,
            "calibration_images": calibrate, "images": len(images), "outputs": plain.shape[1],
            "tensors": [{k: t[k] for k in ("name", "scale", "zero_point")}
                        for t in graph["tensors"]],
            "logits_sha256": hashlib.sha256(plain.tobytes()).hexdigest(),
            "logits": [row.tobytes().hex() for row in plain[:kept]],
        }
        path = os.path.join(args.out, f"{name}.expected.json")
        if args.check:
            with open(path) as f:
                committed = json.load(f)
            same = all(committed[k] == doc[k] for k in ("logits", "logits_sha256"))
            print(f"{name}: {'as committed' if same else 'DIFFERS from the committed file'}")
            bad += not same
        else:
            with open(path, "w") as f:
                json.dump(doc, f, indent=0)
                f.write("\n")
            print(f"{name}: {len(images)} images, {os.path.getsize(path)} bytes")
    if not args.check:
        foreign(args.out)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
