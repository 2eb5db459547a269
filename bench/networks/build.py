#!/usr/bin/env python3
"""Build networks of seeded random weights for performance work, as float32 ONNX opset 13.

    /usr/bin/python3 bench/networks/build.py resnet50 [--image 32 --width 0.25] [--out DIR]

Needs numpy and onnx; Debian 12's python3-onnx brings both. Writes NAME.onnx and seeded inputs, and
prints the SHA-256 of each. The same arguments give the same bytes on every machine and with every
version of the two: no library's random numbers are used, and every normalisation is measured
in integers that float64 holds exactly, so the order of a sum cannot change it.

Convolutions have He-initialised weights and a batch normalisation that holds the mean and variance
measured, layer by layer, on seeded images. Accuracy means nothing here; the range of every tensor
does: --check prints, for each layer, how many int8 values its output takes and how many of them are
clamped: beyond the range calibrated on other inputs, or on the upper bound of a Clip (a Relu's zeros
do not count). onnxruntime runs the file for it; bench/networks/run installs that.

Image networks take pixels in [0, 1], N x 3 x S x S; their inputs are IDX files of bytes (byte / 255),
as `latchkey compile --calibrate` reads them. bert takes N x sequence x hidden float32, a .npy file.
"""

import argparse
import hashlib
import math
import os
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GRID = 256.0  # Measured activations are integers of 1 / GRID.
EPSILON = 1e-5
MIN_DISTINCT = 32
MAX_CLAMPED = 0.10


class Source:
    """Bytes of SHA-256 in counter mode: the same with every version of everything."""

    def __init__(self, *what):
        self.seed = "/".join(map(str, what)).encode()
        self.count = 0

    def bytes(self, count):
        """count bytes, as float64."""
        key, self.count = hashlib.sha256(self.seed + b"%d" % self.count).digest(), self.count + 1
        data = hashlib.shake_256(key).digest(count)
        return np.frombuffer(data, np.uint8).astype(np.float64)

    def weights(self, count):
        """Integers of -127 .. 127, triangular around 0."""
        return self.bytes(count) // 2 - self.bytes(count) // 2


WEIGHT_DEVIATION = math.sqrt((128 * 128 - 1) / 6)  # Of Source.weights().


def images(seed, count, channels, height, width):
    """Bytes N x C x H x W with detail of 1, 4 and 16 pixels."""
    source = Source("image", seed)
    out = np.zeros((count, channels, height, width))
    for size in (1, 4, 16):
        h, w = -(-height // size), -(-width // size)
        noise = source.bytes(count * channels * h * w).reshape(count, channels, h, w)
        out += noise.repeat(size, 2).repeat(size, 3)[:, :, :height, :width]
    # The sum of three has a third of its range around the middle; stretch it.
    return np.clip((out - 382.5) * 0.5 + 127.5, 0, 255).astype(np.uint8)


class Builder:
    """An ONNX graph, and its values on a few seeded images as integers of 1 / GRID."""

    def __init__(self, name, seed):
        self.name = name
        self.source = Source("weights", name, seed)
        self.nodes, self.weights, self.values = [], [], {}
        self.macs = self.parameters = 0

    def constant(self, name, array, parameter=True):
        self.weights.append(numpy_helper.from_array(np.array(array, order="C"), name))
        self.parameters += array.size if parameter else 0
        return name

    def number(self, name, value):
        return self.constant(name, np.array(value, np.float32), False)

    def node(self, op, name, inputs, value=None, **attributes):
        out = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, **attributes))
        if value is not None:
            self.values[out] = value
        return out

    def random(self, shape, fan_in, gain):
        """Integer weights, and what one of them stands for."""
        return (self.source.weights(math.prod(shape)).reshape(shape),
                math.sqrt(gain / fan_in) / WEIGHT_DEVIATION)

    def product(self, x, w, stride, pad, group):
        """The convolution of integers, exact."""
        n, c, height, width = x.shape
        outs, ins, kernel, _ = w.shape
        oh = (height + 2 * pad - kernel) // stride + 1
        ow = (width + 2 * pad - kernel) // stride + 1
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        self.macs += oh * ow * w.size
        window = lambda image, ky, kx: image[:, ky:ky + stride * (oh - 1) + 1:stride,
                                             kx:kx + stride * (ow - 1) + 1:stride]
        out = np.zeros((n, outs, oh, ow))
        for i in range(n):
            for ky in range(kernel):
                for kx in range(kernel):
                    taps = window(padded[i], ky, kx)
                    if group == 1:
                        out[i] += (w[:, :, ky, kx] @ taps.reshape(c, -1)).reshape(outs, oh, ow)
                    else:
                        out[i] += w[:, 0, ky, kx][:, None, None] * taps
        return out

    @staticmethod
    def moments(acc):
        """Mean and variance of each channel. Every sum is one of integers below 2^53."""
        count = acc.shape[0] * acc.shape[2] * acc.shape[3]
        mean = acc.sum((0, 2, 3)) / count
        step = acc - np.rint(mean)[:, None, None]
        unit = 2.0 ** max(0, math.frexp(float(np.abs(step).max()))[1] - 17)
        assert count < 2 ** 18
        return mean, (np.rint(step / unit) ** 2).sum((0, 2, 3)) / count * unit * unit

    def conv(self, name, x, outs, kernel=1, stride=1, group=1, activation=None):
        """Convolution and measured batch normalisation, then None, 'relu' or 'relu6'."""
        channels = self.values[x].shape[1]
        pad = kernel // 2
        shape = (outs, channels // group, kernel, kernel)
        w, unit = self.random(shape, math.prod(shape[1:]), 2.0)
        acc = self.product(self.values[x], w, stride, pad, group)
        mean, variance = self.moments(acc)
        mean, variance = mean * unit / GRID, variance * (unit / GRID) ** 2
        gamma = (192 + self.source.bytes(outs) // 2) / 256
        beta = (self.source.bytes(outs) - 128) / 512
        y = self.node("Conv", f"{name}_conv",
                      [x, self.constant(f"{name}_conv.weight", (w * unit).astype(np.float32))],
                      kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4,
                      group=group)
        scale = gamma / np.sqrt(variance + EPSILON)
        column = lambda v: v[:, None, None]
        value = np.rint(((acc * (unit / GRID) - column(mean)) * column(scale) + column(beta)) * GRID)
        y = self.node("BatchNormalization", f"{name}_bn",
                      [y, *(self.constant(f"{name}_bn.{k}", v.astype(np.float32)) for k, v in
                            (("scale", gamma), ("bias", beta), ("mean", mean), ("var", variance)))],
                      value, epsilon=EPSILON)
        return self.activate(name, y, activation)

    def activate(self, name, x, kind):
        if kind == "relu":
            return self.node("Relu", f"{name}_relu", [x], np.maximum(self.values.pop(x), 0))
        if kind == "relu6":
            bounds = [self.number(f"{name}_clip.{k}", v) for k, v in (("min", 0), ("max", 6))]
            return self.node("Clip", f"{name}_clip", [x, *bounds],
                             np.clip(self.values.pop(x), 0, 6 * GRID))
        return x

    def add(self, name, a, b, activation=None):
        y = self.node("Add", name, [a, b], self.values[a] + self.values[b])
        return self.activate(name, y, activation)

    def maxpool(self, name, x):
        value = self.values[x]
        h, w = ((s - 1) // 2 + 1 for s in value.shape[2:])
        padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        value = np.max([padded[:, :, ky:ky + 2 * h - 1:2, kx:kx + 2 * w - 1:2]
                        for ky in range(3) for kx in range(3)], 0)
        return self.node("MaxPool", name, [x], value, kernel_shape=[3, 3], strides=[2, 2],
                         pads=[1, 1, 1, 1])

    def classify(self, x, classes):
        """Average over the plane and one fully connected layer, its bias from bytes."""
        self.node("GlobalAveragePool", "pool", [x])
        self.node("Flatten", "flatten", ["pool_out"], axis=1)
        channels = self.values[x].shape[1]
        w, unit = self.random((classes, channels), channels, 1.0)
        self.macs += w.size
        bias = (self.source.bytes(classes) - 128) / 512
        return self.node("Gemm", "fc", ["flatten_out", self.constant(
            "fc.weight", (w * unit).astype(np.float32)),
            self.constant("fc.bias", bias.astype(np.float32))], transB=1)

    def model(self, inputs, outputs, last):
        """The file's bytes; inputs and outputs are name and shape behind the batch."""
        final = next(n for n in self.nodes if n.output[0] == last)
        final.output[0] = outputs[0]
        info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT,
                                                                 ["N", *shape])
        model = helper.make_model(
            helper.make_graph(self.nodes, self.name, [info(*inputs)], [info(*outputs)],
                              self.weights),
            producer_name="latchkey bench/networks/build.py",
            opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 7
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def scaled(channels, width):
    """A width multiplier keeps multiples of 8, and at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def resnet50(b, x, width, classes):
    """He et al. 2015 with the stride in the 3x3 convolution, as torchvision has it."""
    x = b.conv("stem", x, scaled(64, width), 7, 2, activation="relu")
    x = b.maxpool("stem_pool", x)
    for s, (count, base) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        inner, outs = scaled(base, width), scaled(4 * base, width)
        for i in range(count):
            name, stride = f"s{s}b{i + 1}", 2 if s > 1 and i == 0 else 1
            y = b.conv(f"{name}_a", x, inner, activation="relu")
            y = b.conv(f"{name}_b", y, inner, 3, stride, activation="relu")
            y = b.conv(f"{name}_c", y, outs)
            shortcut = b.conv(f"{name}_short", x, outs, 1, stride) if i == 0 else x
            x = b.add(f"{name}_add", y, shortcut, "relu")
    return b.classify(x, classes)


def mobilenet_v1(b, x, width, classes):
    """Howard et al. 2017."""
    x = b.conv("stem", x, scaled(32, width), 3, 2, activation="relu6")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
            (1024, 1)]
    for i, (outs, stride) in enumerate(plan, 1):
        channels = b.values[x].shape[1]
        x = b.conv(f"b{i}_depth", x, channels, 3, stride, channels, "relu6")
        x = b.conv(f"b{i}_point", x, scaled(outs, width), activation="relu6")
    return b.classify(x, classes)


def mobilenet_v2(b, x, width, classes):
    """Sandler et al. 2018."""
    x = b.conv("stem", x, scaled(32, width), 3, 2, activation="relu6")
    number = 0
    for expand, outs, count, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                       (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(count):
            number += 1
            name, stride = f"b{number}", first if i == 0 else 1
            channels, y = b.values[x].shape[1], x
            if expand > 1:
                y = b.conv(f"{name}_expand", y, expand * channels, activation="relu6")
            y = b.conv(f"{name}_depth", y, expand * channels, 3, stride, expand * channels, "relu6")
            y = b.conv(f"{name}_project", y, scaled(outs, width))
            same = stride == 1 and channels == b.values[y].shape[1]
            x = b.add(f"{name}_add", x, y) if same else y
    x = b.conv("head", x, scaled(1280, max(1.0, width)), activation="relu6")
    return b.classify(x, classes)


def erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def gelu(b, name, x):
    """x * (1 + erf(x / sqrt 2)) / 2, in the five operators that exporters write before opset 20."""
    y = b.node("Div", f"{name}_scaled", [x, b.number(f"{name}.root", math.sqrt(2))])
    y = b.node("Erf", f"{name}_erf", [y])
    y = b.node("Add", f"{name}_shifted", [y, b.number(f"{name}.one", 1)])
    y = b.node("Mul", f"{name}_product", [x, y])
    value = b.values.get(x)
    if value is not None:
        value = np.rint(value * (0.5 * (1 + erf(value / (GRID * math.sqrt(2))))))
    return b.node("Mul", f"{name}", [y, b.number(f"{name}.half", 0.5)], value)


def bert(b, sequence, heads):
    """One encoder layer of BERT (Devlin et al. 2018), heads of 64."""
    hidden = 64 * heads

    def dense(name, x, ins, outs):
        w, unit = b.random((ins, outs), ins, 1.0)
        b.macs += sequence * w.size
        y = b.node("MatMul", name, [x, b.constant(f"{name}.weight", (w * unit).astype(np.float32))])
        bias = (b.source.bytes(outs) - 128) / 1024
        return b.node("Add", f"{name}_biased", [y, b.constant(f"{name}.bias",
                                                              bias.astype(np.float32))])

    def norm(name, x):
        mean = b.node("ReduceMean", f"{name}_mean", [x], axes=[-1], keepdims=1)
        centred = b.node("Sub", f"{name}_centred", [x, mean])
        square = b.node("Mul", f"{name}_square", [centred, centred])
        y = b.node("ReduceMean", f"{name}_variance", [square], axes=[-1], keepdims=1)
        y = b.node("Add", f"{name}_epsilon", [y, b.number(f"{name}.epsilon", 1e-12)])
        y = b.node("Div", f"{name}_normal", [centred, b.node("Sqrt", f"{name}_deviation", [y])])
        gamma = (192 + b.source.bytes(hidden) // 2) / 256
        beta = (b.source.bytes(hidden) - 128) / 512
        y = b.node("Mul", f"{name}_scaled",
                   [y, b.constant(f"{name}.scale", gamma.astype(np.float32))])
        return b.node("Add", name, [y, b.constant(f"{name}.bias", beta.astype(np.float32))])

    split = b.constant("split", np.array([0, sequence, heads, 64], np.int64), False)
    join = b.constant("join", np.array([0, sequence, hidden], np.int64), False)

    def head(name, order):
        y = b.node("Reshape", f"{name}_split", [dense(name, "hidden", hidden, hidden), split])
        return b.node("Transpose", f"{name}_heads", [y], perm=order)

    scores = b.node("MatMul", "scores", [head("query", [0, 2, 1, 3]), head("key", [0, 2, 3, 1])])
    scores = b.node("Div", "scores_scaled", [scores, b.number("scores.root", 8)])
    scores = b.node("Softmax", "softmax", [scores], axis=-1)
    context = b.node("MatMul", "context", [scores, head("value", [0, 2, 1, 3])])
    b.macs += 2 * heads * sequence * sequence * 64
    context = b.node("Transpose", "context_tokens", [context], perm=[0, 2, 1, 3])
    context = b.node("Reshape", "context_joined", [context, join])
    x = b.node("Add", "attention_add", [dense("attention_out", context, hidden, hidden), "hidden"])
    x = norm("attention_norm", x)
    y = gelu(b, "gelu", dense("ffn_in", x, hidden, 4 * hidden))
    return norm("ffn_norm", b.node("Add", "ffn_add", [dense("ffn_out", y, 4 * hidden, hidden), x]))


IMAGE_NETWORKS = {"resnet50": resnet50, "mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2}
NETWORKS = [*IMAGE_NETWORKS, "bert"]


class Network:
    """name, file (bytes), macs, parameters, and inputs(seed, count)."""

    def __init__(self, name, seed=1, image=224, width=1.0, classes=1000, sequence=128):
        self.name = name
        b = Builder(name, seed)
        heads = max(1, int(12 * width + 0.5))
        if name == "bert":
            self.shape = (sequence, 64 * heads)
            last = bert(b, sequence, heads)
            outputs = ("encoded", self.shape)
        else:
            self.shape = (3, image, image)
            # Enough pixels for the statistics of the last planes of a small variant.
            count = min(64, max(2, 2 * 224 * 224 // image ** 2))
            b.values["image"] = np.rint(images(seed, count, *self.shape) * (GRID / 255))
            last = IMAGE_NETWORKS[name](b, "image", width, classes)
            outputs = ("logits", (classes,))
        entry = "hidden" if name == "bert" else "image"
        self.file = b.model((entry, self.shape), outputs, last)
        self.macs, self.parameters = b.macs, b.parameters

    def inputs(self, seed, count):
        """Bytes N x C x H x W, or float32 for bert."""
        if self.name != "bert":
            return images(seed, count, *self.shape)
        data = Source("hidden", seed).weights(count * math.prod(self.shape))
        return (data / WEIGHT_DEVIATION).astype(np.float32).reshape(count, *self.shape)


def real(inputs):
    """What the float network takes."""
    return inputs if inputs.dtype == np.float32 else inputs.astype(np.float32) / np.float32(255)


def write_inputs(path, inputs):
    """An IDX file of bytes, or .npy. Returns the file's name."""
    if inputs.dtype == np.float32:
        np.save(path + "-inputs.npy", inputs)
        return path + "-inputs.npy"
    with open(path + "-images-idx4-ubyte", "wb") as f:
        f.write(struct.pack(f">HBB{inputs.ndim}I", 0, 8, inputs.ndim, *inputs.shape))
        f.write(inputs.tobytes())
    return path + "-images-idx4-ubyte"


def layer_outputs(graph):
    """Name, operator and output tensor of what an accelerator computes, behind its normalisation and
    clamp, and the upper bound of that clamp."""
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    folded = ("BatchNormalization", "Relu", "Clip")
    weights = {w.name: w for w in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type in (*folded, "Reshape", "Transpose", "Flatten"):
            continue
        out, bound = node.output[0], math.inf
        while len(readers.get(out, [])) == 1 and readers[out][0].op_type in folded:
            reader = readers[out][0]
            out = reader.output[0]
            if reader.op_type == "Clip":
                bound = float(numpy_helper.to_array(weights[reader.input[2]]))
        layers.append((node.name, node.op_type, out, bound))
    return layers


def check(network, seed):
    """Ranges of every layer on one set of inputs, int8 values and clamps on another. Returns how
    many layers miss the bounds."""
    import onnxruntime
    model = onnx.load_from_string(network.file)
    layers = layer_outputs(model.graph)
    names = [out for _, _, out, _ in layers]
    bounds = {out: bound for _, _, out, bound in layers}
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=out) for out in names if out not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def run(seed, visit):
        for x in real(network.inputs(seed, 8)):
            for name, value in zip(names, session.run(names, {entry: x[None]})):
                visit(name, value)

    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

    def widen(name, value):
        low[name] = min(low[name], float(value.min()))
        high[name] = max(high[name], float(value.max()))

    counts = {name: np.zeros(256, np.int64) for name in names}
    clamps = dict.fromkeys(names, 0)

    def quantise(name, value):
        scale = (high[name] - low[name]) / 255 or 1.0
        q = np.rint(value / scale) + np.rint(-low[name] / scale)
        clamps[name] += int(((q < 0) | (q > 255) | (value >= bounds[name])).sum())
        counts[name] += np.bincount(np.clip(q, 0, 255).astype(np.int64).ravel(), minlength=256)

    run(seed, widen)
    run(seed + 1, quantise)
    print(f"{'layer':<22} {'operator':<18} {'lowest':>9} {'highest':>9} {'distinct':>8} {'clamped':>8}")
    bad = 0
    for layer, op, name, _ in layers:
        clamped = clamps[name] / counts[name].sum()
        distinct = int((counts[name] > 0).sum())
        good = distinct >= MIN_DISTINCT and clamped < MAX_CLAMPED
        bad += not good
        print(f"{layer:<22} {op:<18} {low[name]:>9.3f} {high[name]:>9.3f} {distinct:>8} "
              f"{100 * clamped:>7.2f}%{'' if good else '  MISSED'}")
    print(f"{network.name}: {len(layers)} layers, {bad} with fewer than {MIN_DISTINCT} int8 values or "
          f"{100 * MAX_CLAMPED:.0f} % clamped and more")
    return bad


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def add_network_options(parser):
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=positive, default=224, help="rows and columns (224)")
    parser.add_argument("--width", type=float, default=1.0,
                        help="multiplies channels; heads for bert (1.0)")
    parser.add_argument("--classes", type=positive, default=1000)
    parser.add_argument("--sequence", type=positive, default=128, help="tokens, bert only (128)")


def from_options(name, args):
    return Network(name, args.seed, args.image, args.width, args.classes, args.sequence)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=NETWORKS, metavar="network",
                        help=", ".join(NETWORKS))
    add_network_options(parser)
    parser.add_argument("--inputs", type=positive, default=16, help="inputs to write (16)")
    parser.add_argument("--out", default=".", help="folder for the files (here)")
    parser.add_argument("--check", action="store_true",
                        help="print the int8 values of every layer; exit 1 where too few")
    args = parser.parse_args()
    if args.image < 32 or not 0 < args.width <= 4:
        parser.error("--image is 32 or more, --width in (0, 4]")
    os.makedirs(args.out, exist_ok=True)
    bad = 0
    for name in args.networks:
        network = from_options(name, args)
        path = os.path.join(args.out, name)
        with open(f"{path}.onnx", "wb") as f:
            f.write(network.file)
        files = [f"{path}.onnx", write_inputs(path, network.inputs(args.seed, args.inputs))]
        print(f"{name}: {network.macs:,} MACs, {network.parameters:,} parameters")
        for file in files:
            with open(file, "rb") as f:
                print(f"  {hashlib.sha256(f.read()).hexdigest()}  {file}", flush=True)
        if args.check:
            bad += check(network, args.seed + 100)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
