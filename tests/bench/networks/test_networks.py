"""bench/networks: the seeded networks are the same everywhere, and the published figures add up."""

import hashlib
import json
import math
import pathlib
import sys
import unittest

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

NETWORKS = pathlib.Path(__file__).resolve().parents[3] / "bench" / "networks"
sys.path.insert(0, str(NETWORKS))
import build  # noqa: E402

SMALL = {"image": 32, "width": 0.25, "classes": 100, "sequence": 16}
# Small variants, seed 1. Other bytes are other networks: figures of before do not hold for them.
HASHES = {
    "resnet50": "ac38dcad0c9b6f5e63a82d828d948a860bfb5598cc9ad973acc680c8f934ea5c",
    "mobilenet_v1": "d0a744da76e9fe43d3f9046c63405563d3e38cf3567374ea826272f1e9a0e2d4",
    "mobilenet_v2": "2a41824c02046d99f29899b5b7b86fe178b2808b901561bcff2bd75159e49c56",
    "bert": "59986f0bda1632909e3a33bb5c8bd7ae904b5b0c3c063d64eeefcfd7180da26a",
}


def counted_macs(model):
    """Multiply-accumulates from the file's shapes alone."""
    graph = shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*graph.value_info, *graph.input, *graph.output]}
    shapes.update((w.name, list(w.dims)) for w in graph.initializer)
    total = 0
    for node in graph.node:
        out = [max(1, d) for d in shapes[node.output[0]]]
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "Gemm":
            total += math.prod(out) * shapes[node.input[1]][1]
        elif node.op_type == "MatMul":
            total += math.prod(out) * shapes[node.input[0]][-1]
    return total


class Build(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.networks = {name: build.Network(name, **SMALL) for name in build.NETWORKS}

    def test_same_bytes_everywhere(self):
        found = {name: hashlib.sha256(n.file).hexdigest() for name, n in self.networks.items()}
        self.assertEqual(found, HASHES)

    def test_another_seed_is_another_network(self):
        other = build.Network("mobilenet_v2", seed=2, **SMALL)
        self.assertNotEqual(other.file, self.networks["mobilenet_v2"].file)
        self.assertEqual(other.macs, self.networks["mobilenet_v2"].macs)

    def test_macs_and_parameters_are_the_files(self):
        for name, network in self.networks.items():
            with self.subTest(name):
                model = onnx.load_from_string(network.file)
                onnx.checker.check_model(model, full_check=True)
                self.assertEqual(network.macs, counted_macs(model))
                stored = sum(math.prod(w.dims) for w in model.graph.initializer
                             if w.dims and w.data_type == onnx.TensorProto.FLOAT)
                self.assertEqual(network.parameters, stored)

    def test_weights_are_integers_of_one_scale(self):
        model = onnx.load_from_string(self.networks["resnet50"].file)
        kernels = [numpy_helper.to_array(w) for w in model.graph.initializer if len(w.dims) == 4]
        self.assertEqual(len(kernels), 53)
        for w in kernels:
            unit = np.abs(w[w != 0]).min()
            self.assertLess(np.abs(w / unit - np.rint(w / unit)).max(), 1e-3)
            self.assertLessEqual(np.abs(w / unit).max(), 127.01)

    def test_normalisation_is_the_measured_one(self):
        """The first layer again, in floating point: its output has the deviation that it promises."""
        model = onnx.load_from_string(self.networks["mobilenet_v1"].file)
        weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
        x = build.real(build.images(1, 16, 3, 32, 32)).astype(np.float64)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
        y = np.einsum("nchwyx,ocyx->nohw", windows, weights["stem_conv.weight"])
        mean, var = weights["stem_bn.mean"], weights["stem_bn.var"]
        self.assertLess(np.abs((y.mean((0, 2, 3)) - mean) / np.sqrt(var)).max(), 0.3)
        self.assertLess(np.abs(np.log(y.var((0, 2, 3)) / var)).max(), 0.3)

    def test_inputs(self):
        pixels = self.networks["resnet50"].inputs(1, 4)
        self.assertEqual((pixels.shape, pixels.dtype), ((4, 3, 32, 32), np.uint8))
        self.assertGreater(len(np.unique(pixels)), 200)
        hidden = self.networks["bert"].inputs(1, 4)
        self.assertEqual((hidden.shape, hidden.dtype), ((4, 16, 192), np.float32))
        self.assertAlmostEqual(float(hidden.std()), 1.0, delta=0.05)


class Anchors(unittest.TestCase):
    def setUp(self):
        self.doc = json.loads((NETWORKS / "anchors.json").read_text(encoding="utf-8"))

    def test_utilisation_follows_from_the_published_figures(self):
        derived = [a for a in self.doc["anchors"] if "frames_per_second" in a]
        self.assertGreater(len(derived), 10)
        for a in derived:
            with self.subTest(a["configuration"] + " " + a["network"]):
                rate = a["gop_per_frame"] * a["frames_per_second"] / a["peak_gops"]
                self.assertAlmostEqual(a["utilisation"], rate, delta=6e-4)

    def test_a_verified_row_names_a_source(self):
        for a in self.doc["anchors"]:
            self.assertEqual(a["verified"], a["source"] in self.doc["sources"], a)
            for share in a.get("utilisation_range", [a.get("utilisation")]):
                self.assertTrue(0 < share < 1, a)


if __name__ == "__main__":
    unittest.main()
