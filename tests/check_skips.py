#!/usr/bin/env python3
"""Reads ctest's JUnit report of a run, prints the tests' summary and every skipped test, and fails when
a test failed, none ran, or a skipped one is not listed with its cause in tests/allowed_skips.txt
(lines 'test name: cause')."""
import pathlib
import sys
import xml.etree.ElementTree as xml

allowed = {}
for line in (pathlib.Path(__file__).resolve().parent / "allowed_skips.txt").read_text().splitlines():
    if line.strip() and not line.startswith("#"):
        name, _, cause = line.partition(":")
        allowed[name.strip()] = cause.strip()

cases = xml.parse(sys.argv[1]).getroot().findall(".//testcase")
skipped = [c.get("name") for c in cases if c.find("skipped") is not None or c.get("status") == "notrun"]
failed = [c.get("name") for c in cases if c.find("failure") is not None]
for name in skipped:
    print(f"skipped: {name}: {allowed.get(name, 'NOT LISTED in tests/allowed_skips.txt')}")
for name in failed:
    print(f"failed: {name}")
passed = len(cases) - len(skipped) - len(failed)
print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
sys.exit(1 if failed or passed == 0 or any(name not in allowed for name in skipped) else 0)
