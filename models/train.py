#!/usr/bin/env python3
"""Train the four demonstration models and write them as ONNX opset 13.

    /usr/bin/python3 models/train.py [digits_mlp] [fashion_mlp] [fashion_lenet]
                                     [fashion_resnet8] [--out DIR]

Needs Debian 12's python3-torch (1.13), libopenblas0-pthread, python3-onnx and python3-sklearn (the
digits only). One thread and fixed seeds: the same versions on the same kind of CPU give the same
bytes. The committed files are what the tests use; CI checks their hashes and accuracies and does
not train.

Every model takes float32 NCHW pixels in [0, 1] (byte / 255) with a dynamic batch, and returns
logits. The last epoch is exported, none is picked. The settings of fashion_lenet are its second:
the first (14 epochs, more dropout, label smoothing) reached 92.1 % on the test images.
"""

import argparse
import gzip
import hashlib
import math
import os
import struct
import sys
import time

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

FASHION = os.environ.get("LATCHKEY_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")


def read_idx(path):
    with gzip.open(path, "rb") as f:
        data = f.read()
    rank = data[3]
    shape = struct.unpack(f">{rank}I", data[4:4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    # mtime 0: the same data gives the same file.
    with open(path, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
        z.write(header + array.astype(np.uint8).tobytes())


def fashion():
    part = lambda kind, what: read_idx(f"{FASHION}/{kind}-{what}-ubyte.gz")
    return (part("train", "images-idx3"), part("train", "labels-idx1"),
            part("t10k", "images-idx3"), part("t10k", "labels-idx1"))


def digits(out):
    """scikit-learn's 8x8 digits, 0..16 stretched to bytes; a fixed split into 1,437 and 360."""
    from sklearn.datasets import load_digits
    data = load_digits()
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)
    labels = data.target.astype(np.uint8)
    order = np.random.RandomState(1).permutation(len(labels))
    test, train = order[:360], order[360:]
    sets = (images[train], labels[train], images[test], labels[test])
    for name, array in zip(("train-images-idx3", "train-labels-idx1", "test-images-idx3",
                            "test-labels-idx1"), sets):
        write_idx(os.path.join(out, f"digits-{name}-ubyte.gz"), array)
    return sets


class Mlp(nn.Module):
    def __init__(self, sizes, dropout):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.dropout = dropout

    def forward(self, x):
        x = x.flatten(1)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i + 1 < len(self.layers):
                x = F.dropout(F.relu(x), self.dropout, self.training)
        return x


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.dropout(x.flatten(1), 0.25, self.training)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.25, self.training))


class Residual(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + x); x passes a 1x1 convolution where the shape changes."""

    def __init__(self, ins, outs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outs)
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outs)
        self.project = nn.Conv2d(ins, outs, 1, stride) if ins != outs else None

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (self.project(x) if self.project else x))


class ResNet8(nn.Module):
    """The residual network of MLPerf Tiny, for one channel of 28x28."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stages = nn.ModuleList(Residual(*s) for s in ((16, 16, 1), (16, 32, 2), (32, 64, 2)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def accuracy(net, images, labels):
    net.eval()
    right = 0
    with torch.no_grad():
        for i in range(0, len(labels), 500):
            right += int((net(images[i:i + 500]).argmax(1) == labels[i:i + 500]).sum())
    return right / len(labels)


def train(net, sets, epochs, batch, lr, flip, decay, smoothing=0.05):
    x, y, tx, ty = sets
    x = torch.from_numpy(x.astype(np.float32) / 255.0)[:, None]
    tx = torch.from_numpy(tx.astype(np.float32) / 255.0)[:, None]
    y = torch.from_numpy(y.astype(np.int64))
    ty = torch.from_numpy(ty.astype(np.int64))
    steps = math.ceil(len(y) / batch)
    opt = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=epochs * steps,
                                                pct_start=0.25)
    start = time.time()
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(y))
        total = 0.0
        for i in range(0, len(y), batch):
            pick = order[i:i + batch]
            xb, yb = x[pick], y[pick]
            if flip:
                mirrored = torch.rand(len(pick)) < 0.5
                xb = torch.where(mirrored[:, None, None, None], xb.flip(3), xb)
            loss = F.cross_entropy(net(xb), yb, label_smoothing=smoothing)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            total += float(loss) * len(pick)
        print(f"  epoch {epoch + 1}/{epochs} loss {total / len(y):.4f} "
              f"{time.time() - start:.0f} s", flush=True)
    return accuracy(net, tx, ty)


class Writer:
    """The nodes and weights of one sequential ONNX graph."""

    def __init__(self, name, shape):
        self.name, self.shape = name, shape
        self.nodes, self.weights, self.last = [], [], "image"

    def tensor(self, name, value):
        self.weights.append(numpy_helper.from_array(value.detach().numpy().copy(), name))
        return name

    def add(self, op, name, weights=(), **attributes):
        out = f"{name}_out"
        self.nodes.append(helper.make_node(op, [self.last, *weights], [out], name=name,
                                           **attributes))
        self.last = out

    def linear(self, name, layer):
        self.add("Gemm", name, [self.tensor(f"{name}.weight", layer.weight),
                                self.tensor(f"{name}.bias", layer.bias)], transB=1)

    def conv(self, name, layer):
        p = layer.padding
        weights = [self.tensor(f"{name}.weight", layer.weight)]
        if layer.bias is not None:
            weights.append(self.tensor(f"{name}.bias", layer.bias))
        self.add("Conv", name, weights,
                 kernel_shape=list(layer.kernel_size), strides=list(layer.stride),
                 pads=[p[0], p[1], p[0], p[1]])

    def norm(self, name, layer):
        self.add("BatchNormalization", name,
                 [self.tensor(f"{name}.weight", layer.weight),
                  self.tensor(f"{name}.bias", layer.bias),
                  self.tensor(f"{name}.mean", layer.running_mean),
                  self.tensor(f"{name}.var", layer.running_var)], epsilon=layer.eps)

    def save(self, path, classes):
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes, self.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            self.weights)
        model = helper.make_model(graph, producer_name="latchkey models/train.py",
                                  opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 7
        onnx.checker.check_model(model)
        with open(path, "wb") as f:
            f.write(model.SerializeToString(deterministic=True))


def write_mlp(net, name, shape, path):
    w = Writer(name, shape)
    w.add("Flatten", "flatten", axis=1)
    for i, layer in enumerate(net.layers):
        w.linear(f"fc{i + 1}", layer)
        if i + 1 < len(net.layers):
            w.add("Relu", f"relu{i + 1}")
    w.save(path, net.layers[-1].out_features)


def write_lenet(net, name, path):
    w = Writer(name, (1, 28, 28))
    for i, (conv, norm) in enumerate(((net.conv1, net.bn1), (net.conv2, net.bn2)), 1):
        w.conv(f"conv{i}", conv)
        w.norm(f"bn{i}", norm)
        w.add("Relu", f"relu{i}")
        w.add("MaxPool", f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
    w.add("Flatten", "flatten", axis=1)
    w.linear("fc1", net.fc1)
    w.add("Relu", "relu3")
    w.linear("fc2", net.fc2)
    w.save(path, 10)


def write_resnet8(net, name, path):
    w = Writer(name, (1, 28, 28))
    w.conv("conv", net.conv)
    w.norm("bn", net.norm)
    w.add("Relu", "relu")
    for i, stage in enumerate(net.stages, 1):
        entry = w.last
        for j, (conv, norm) in enumerate(((stage.conv1, stage.norm1), (stage.conv2, stage.norm2)),
                                         1):
            w.conv(f"stage{i}_conv{j}", conv)
            w.norm(f"stage{i}_bn{j}", norm)
            if j == 1:
                w.add("Relu", f"stage{i}_relu{j}")
        body, w.last = w.last, entry
        if stage.project:
            w.conv(f"stage{i}_project", stage.project)
        shortcut, w.last = w.last, body
        w.add("Add", f"stage{i}_add", [shortcut])
        w.add("Relu", f"stage{i}_relu2")
    w.add("GlobalAveragePool", "pool")
    w.add("Flatten", "flatten", axis=1)
    w.linear("fc", net.fc)
    w.save(path, 10)


def main():
    names = ["digits_mlp", "fashion_mlp", "fashion_lenet", "fashion_resnet8"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="model", help=", ".join(names))
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    args = parser.parse_args()
    unknown = set(args.models) - set(names)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.models or names:
        torch.manual_seed(7)
        path = os.path.join(args.out, f"{name}.onnx")
        print(name, flush=True)
        if name == "digits_mlp":
            net = Mlp((64, 64, 32, 10), 0.1)
            result = train(net, digits(args.out), epochs=60, batch=32, lr=3e-3, flip=False,
                           decay=1e-2)
            write_mlp(net, name, (1, 8, 8), path)
        elif name == "fashion_mlp":
            net = Mlp((784, 256, 128, 10), 0.15)
            result = train(net, fashion(), epochs=30, batch=128, lr=2e-3, flip=True, decay=1e-2)
            write_mlp(net, name, (1, 28, 28), path)
        elif name == "fashion_lenet":
            net = LeNet()
            result = train(net, fashion(), epochs=20, batch=128, lr=3e-3, flip=True,
                           decay=1e-2, smoothing=0.0)
            write_lenet(net, name, path)
        else:
            net = ResNet8()
            result = train(net, fashion(), epochs=8, batch=128, lr=5e-3, flip=True,
                           decay=1e-2, smoothing=0.0)
            write_resnet8(net, name, path)
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        print(f"  {name}: test accuracy {100 * result:.2f} %, {os.path.getsize(path)} bytes, "
              f"sha256 {digest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
