#!/usr/bin/env python3
"""Write what ONNX Runtime computes for single quantised operators.

    python3 tests/vectors/make_operators.py [--check]

Needs the packages of make_expected.py, and a CPU with AVX512-VNNI for the same reason. Every case
is a model of one operator (with a MaxPool that makes a second tensor where two are needed) on
bytes, with scales drawn at random; the image is all 256 bytes in random order, for means of whole
planes bytes whose mean differs between the planes.

Output: operators.json, a list of cases: operator, model (base64), input and output (hexadecimal).
"""

import argparse
import base64
import json
import os
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
VARIANTS = 6
SHAPE = (4, 8, 8)


class Case:
    """One model under construction: bytes x -> ... -> bytes y."""

    def __init__(self, rng, signed):
        self.rng = rng
        self.kind = np.int8 if signed else np.uint8
        self.onnx_kind = TensorProto.INT8 if signed else TensorProto.UINT8
        self.nodes, self.weights = [], []
        self.shape = SHAPE

    def image(self):
        if self.shape == SHAPE:
            image = self.rng.permutation(256).reshape(SHAPE)
        else:
            base = self.rng.uniform(0, 255, (self.shape[0], 1, 1))
            image = np.clip(base + self.rng.normal(0, 60, self.shape), 0, 255).astype(int)
        return (image - (128 if self.kind is np.int8 else 0)).astype(self.kind)

    def constant(self, array):
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def quantisation(self, low, high):
        """A random scale between low and high and a random zero point."""
        scale = np.float32(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        zero = self.rng.integers(0, 256) - (128 if self.kind is np.int8 else 0)
        return [self.constant(scale), self.constant(self.kind(zero))]

    def node(self, op, inputs, output="y", domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def second(self, whole):
        """Another tensor: the maxima of windows or of planes of x."""
        size = SHAPE[1:] if whole else [3, 3]
        pads = [0] * 4 if whole else [1] * 4
        return self.node("MaxPool", ["x"], "b", kernel_shape=size, pads=pads)

    def model(self):
        graph = helper.make_graph(
            self.nodes, "case",
            [helper.make_tensor_value_info("x", self.onnx_kind, ["N", *self.shape])],
            [helper.make_tensor_value_info("y", self.onnx_kind, None)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14),
                                                        helper.make_opsetid("com.microsoft", 1)])
        model.ir_version = 7
        return model.SerializeToString()


def plane_mean(case, build, *args, **attributes):
    """16 planes of 7 x 9 pixels, so that the divisor is no power of two."""
    case.shape = (16, 7, 9)
    build(case, *args, **attributes)


def pool(case, op, **attributes):
    case.node(op, ["x", *case.quantisation(0.01, 0.1), *case.quantisation(0.005, 0.05)],
              domain="com.microsoft", **attributes)


def binary(case, op, whole):
    b = case.second(whole)
    # The maximum keeps the quantisation of its input.
    x = case.quantisation(0.01, 0.1)
    top = (0.02, 0.2) if op == "QLinearAdd" else (0.02, 1.0)
    case.node(op, ["x", *x, b, *x, *case.quantisation(*top)], domain="com.microsoft")


def concat(case):
    b = case.second(False)
    x = case.quantisation(0.01, 0.1)
    case.node("QLinearConcat", [*case.quantisation(0.01, 0.1), "x", *x, b, *x, "x", *x],
              domain="com.microsoft", axis=1)


def slices(case):
    """Every second channel and row, from the second column on."""
    bounds = [case.constant(np.array(v, np.int64))
              for v in ([0, 0, 1], [99, 99, 99], [1, 2, 3], [2, 2, 1])]
    x = case.quantisation(0.01, 0.1)
    case.node("DequantizeLinear", ["x", *x], "xd")
    case.node("Slice", ["xd", *bounds], "f")
    case.node("QuantizeLinear", ["f", *x])


def unary(case, op, **attributes):
    low, high = (1 / 300, 1 / 200) if op == "QLinearSigmoid" else (0.01, 0.1)
    case.node(op, ["x", *case.quantisation(0.01, 0.1), *case.quantisation(low, high)],
              domain="com.microsoft", **attributes)


def conv(case, outs, group, dilation):
    w = case.rng.integers(-127, 128, (outs, SHAPE[0] // group, 3, 3)).astype(np.int8)
    scales = case.rng.uniform(0.001, 0.01, outs).astype(np.float32)
    bias = case.rng.integers(-3000, 3000, outs).astype(np.int32)
    case.node("QLinearConv", ["x", *case.quantisation(0.01, 0.1), case.constant(w),
                              case.constant(scales), case.constant(np.zeros(outs, np.int8)),
                              *case.quantisation(0.02, 0.2), case.constant(bias)],
              group=group, dilations=[dilation] * 2, pads=[dilation] * 4)


def qdq(case, op, domain="", second=None, **attributes):
    """DequantizeLinear -> op in float -> QuantizeLinear."""
    x = case.quantisation(0.01, 0.1)
    inputs = [case.node("DequantizeLinear", ["x", *x], "xd")]
    if second is not None:
        inputs.append(case.node("DequantizeLinear", [case.second(second), *x], "bd"))
    case.node(op, inputs, "f", domain, **attributes)
    case.node("QuantizeLinear", ["f", *case.quantisation(0.01, 0.1)])


OPERATORS = {
    "QLinearGlobalAveragePool": lambda c: plane_mean(c, pool, "QLinearGlobalAveragePool"),
    "QLinearAveragePool": lambda c: pool(c, "QLinearAveragePool", kernel_shape=[2, 2],
                                         strides=[2, 2]),
    "QLinearAveragePool, pads": lambda c: pool(c, "QLinearAveragePool", kernel_shape=[3, 3],
                                               pads=[1, 1, 1, 1], count_include_pad=1),
    "QLinearMul": lambda c: binary(c, "QLinearMul", False),
    "QLinearMul, by channel": lambda c: binary(c, "QLinearMul", True),
    "QLinearAdd": lambda c: binary(c, "QLinearAdd", False),
    "QLinearAdd, by channel": lambda c: binary(c, "QLinearAdd", True),
    "QLinearLeakyRelu": lambda c: unary(c, "QLinearLeakyRelu",
                                        alpha=float(c.rng.uniform(0.01, 0.5))),
    "QLinearSigmoid": lambda c: unary(c, "QLinearSigmoid"),
    "QLinearConv, depthwise": lambda c: conv(c, 4, 4, 1),
    "QLinearConv, groups": lambda c: conv(c, 6, 2, 1),
    "QLinearConv, multiplier": lambda c: conv(c, 8, 4, 1),
    "QLinearConv, dilated": lambda c: conv(c, 3, 1, 2),
    "QLinearConv, depthwise dilated": lambda c: conv(c, 4, 4, 2),
    "QDQ AveragePool": lambda c: qdq(c, "AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "QDQ GlobalAveragePool": lambda c: plane_mean(c, qdq, "GlobalAveragePool"),
    "QDQ ReduceMean": lambda c: plane_mean(c, qdq, "ReduceMean", axes=[2, 3]),
    "QDQ Add": lambda c: qdq(c, "Add", second=False),
    "QDQ Sub": lambda c: qdq(c, "Sub", second=False),
    "QDQ Sub, by channel": lambda c: qdq(c, "Sub", second=True),
    "QDQ Mul": lambda c: qdq(c, "Mul", second=False),
    "QDQ Mul, by channel": lambda c: qdq(c, "Mul", second=True),
    "QDQ Sigmoid": lambda c: qdq(c, "Sigmoid"),
    "QDQ HardSigmoid": lambda c: qdq(c, "HardSigmoid"),
    "QDQ HardSwish": lambda c: qdq(c, "HardSwish"),
    "QDQ Tanh": lambda c: qdq(c, "Tanh"),
    "QDQ LeakyRelu": lambda c: qdq(c, "LeakyRelu", alpha=0.1),
    "QDQ Elu": lambda c: qdq(c, "Elu"),
    "QDQ Softplus": lambda c: qdq(c, "Softplus"),
    "QDQ Erf": lambda c: qdq(c, "Erf"),
    "QDQ Gelu": lambda c: qdq(c, "Gelu", "com.microsoft"),
    "QDQ FastGelu": lambda c: qdq(c, "FastGelu", "com.microsoft"),
    "QDQ QuickGelu": lambda c: qdq(c, "QuickGelu", "com.microsoft"),
    "QLinearConcat": concat,
    "QDQ Concat": lambda c: qdq(c, "Concat", second=False, axis=1),
    "QDQ Slice": slices,
}


def cases():
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for number, (name, build) in enumerate(OPERATORS.items()):
        for variant in range(VARIANTS):
            rng = np.random.default_rng([number, variant])
            case = Case(rng, signed=variant % 4 == 3)
            build(case)
            model = case.model()
            images = case.image()[None]
            session = onnxruntime.InferenceSession(model, options,
                                                   providers=["CPUExecutionProvider"])
            out = session.run(None, {"x": images})[0]
            yield {"operator": name, "signed": case.kind is np.int8,
                   "model": base64.b64encode(model).decode(),
                   "input": [i.tobytes().hex() for i in images],
                   "output": [o.tobytes().hex() for o in out]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file")
    args = parser.parse_args()
    with open("/proc/cpuinfo") as f:
        if "avx512_vnni" not in f.read():
            raise SystemExit("this CPU has no AVX512-VNNI: ONNX Runtime may saturate; not run")
    doc = {"onnxruntime": onnxruntime.__version__, "cases": list(cases())}
    path = os.path.join(HERE, "operators.json")
    if args.check:
        with open(path) as f:
            same = json.load(f)["cases"] == doc["cases"]
        print("as committed" if same else "DIFFERS from the committed file")
        return 0 if same else 1
    with open(path, "w") as f:
        json.dump(doc, f, indent=0)
        f.write("\n")
    print(f"{len(doc['cases'])} cases, {os.path.getsize(path)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
