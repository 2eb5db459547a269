#!/usr/bin/env python3
"""Reads ctest's record of the last run, prints every skipped test and fails when one is not listed,
with its cause, in tests/allowed_skips.txt (lines 'test name: cause')."""
import pathlib
import re
import sys

here = pathlib.Path(__file__).resolve().parent
allowed = {}
for line in (here / "allowed_skips.txt").read_text().splitlines():
    if line.strip() and not line.startswith("#"):
        name, _, cause = line.partition(":")
        allowed[name.strip()] = cause.strip()

log = pathlib.Path(sys.argv[1]) / "Temporary" / "LastTest.log"
text = log.read_text(errors="replace")
names = re.findall(r"^\d+/\d+ Test: (.*)$", text, re.M)
chunks = re.split(r"^\d+/\d+ Test: .*$", text, flags=re.M)[1:]
skipped = [n for n, c in zip(names, chunks)
           if re.search(r"\[  SKIPPED \]|^Test Skipped\.", c, re.M)]
unlisted = [n for n in skipped if n not in allowed]
for name in skipped:
    print(f"skipped: {name}: {allowed.get(name, 'NOT LISTED in tests/allowed_skips.txt')}")
passed = len(re.findall(r"^Test Passed\.", text, re.M))
failed = len(re.findall(r"^Test Failed\.", text, re.M))
print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
sys.exit(1 if unlisted or failed or not names else 0)
