#!/usr/bin/env python3
"""Runs one image of the digits model on a card whose waveforms are recorded, as FST
files in the folder given (default: waves). Needs the trace build, which ./dev wave makes.
A trace exposes every secret of the simulated chip."""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(prog="./dev wave", description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build-trace", help=argparse.SUPPRESS)
    parser.add_argument("--output", default="waves", help="folder for the FST files")
    args = parser.parse_args()
    tool = pathlib.Path(args.build).resolve() / "bin" / "latchkey"
    images = ROOT / "models" / "digits-test-images-idx3-ubyte.gz"
    with tempfile.TemporaryDirectory(prefix="latchkey-wave-") as folder:
        work = pathlib.Path(folder)
        env = dict(os.environ, LATCHKEY_STATE_DIR=str(work / "state"))
        (work / "pass").write_text("wave passphrase\n")
        secret = ["--passphrase-file", str(work / "pass")]
        record, program, package = work / "card.lkd", work / "digits.lkm", work / "digits.lkx"
        for words in (
                ["enroll", "--device", "sim:7", "--record", record, *secret],
                ["compile", ROOT / "models" / "digits_mlp.onnx", "-o", program, "--calibrate", images],
                ["lock", program, "--record", record, "-o", package, *secret],
                ["run", package, "--record", record, "--device", "sim:7", "--images", images,
                 "--count", "1", "--trace", args.output]):
            run = subprocess.run([str(tool), *map(str, words)], env=env, check=False)
            if run.returncode:
                sys.exit(run.returncode)
    for path in sorted(pathlib.Path(args.output).glob("*.fst")):
        print(f"{path}: open it with gtkwave or surfer")


if __name__ == "__main__":
    main()
