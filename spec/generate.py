#!/usr/bin/env python3
"""Turns spec/latchkey.json into the SystemVerilog package, the C++ header, the register page and the
kernel descriptions of the card images.

    spec/generate.py           write the files
    spec/generate.py --check   exit 1 and name the file when one differs from what would be written
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPEC = json.loads((ROOT / "spec/latchkey.json").read_text())
NOTE = "Generated from spec/latchkey.json by spec/generate.py; do not edit."


def camel(name):
    return "".join(part[:1].upper() + part[1:].lower() for part in name.split("_"))


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def build_version():
    major, minor, patch = (int(n) for n in (ROOT / "VERSION").read_text().split("."))
    return major << 16 | minor << 8 | patch


def check_spec():
    """Fields must not overlap, leave their word or share an offset."""
    used = {}
    for f in SPEC["descriptor"]:
        mask = ((1 << f["width"]) - 1) << f["lsb"]
        assert mask < 1 << 32, f"descriptor field {f['name']} leaves its word"
        assert not used.get(f["word"], 0) & mask, f"descriptor field {f['name']} overlaps another"
        used[f["word"]] = used.get(f["word"], 0) | mask
    offsets = [r["offset"] for r in SPEC["registers"]]
    assert len(set(offsets)) == len(offsets), "two registers share an offset"
    word = 0
    for f in SPEC["manifest"]:
        assert f["word"] == word, f"manifest field {f['name']} is not at word {word}"
        word += f["words"]
    assert word == next(p["value"] for p in SPEC["parameters"] if p["name"] == "ManifestWords")


def systemverilog():
    out = [f"// {NOTE}", "// A package serves modules that use a part of it.", "// verilator lint_off UNUSEDPARAM",
           "package lk_pkg;"]
    for p in SPEC["parameters"]:
        out += [f"  // {p['doc']}.", f"  localparam int unsigned {p['name']} = {p['value']};"]
    out += ["  // Version of the project: major << 16 | minor << 8 | patch.",
            f"  localparam logic [31:0] BuildVersion = 32'h{build_version():08x};"]
    for e in SPEC["enums"]:
        out += ["", f"  // {e['doc']}.", f"  typedef enum logic [{e['width'] - 1}:0] {{"]
        rows = [f"    {camel(e['name'])}{v['name']} = {e['width']}'d{v['value']}" for v in e["values"]]
        out += [",\n".join(rows), f"  }} {e['name']}_e;"]
    out += ["", "  // Byte offsets of the registers on AXI-Lite."]
    for r in SPEC["registers"]:
        out.append(f"  localparam logic [15:0] Reg{camel(r['name'])} = 16'h{r['offset']:04x};")
    out += ["", "  // Index of each counter; COUNTERS + 8 * index is its low word.",
            f"  localparam int unsigned NumCounters = {len(SPEC['counters'])};"]
    for i, c in enumerate(SPEC["counters"]):
        out.append(f"  localparam int unsigned Counter{c['name']} = {i};")
    fields = sorted(SPEC["descriptor"], key=lambda f: 32 * f["word"] + f["lsb"])
    out += ["", "  // A descriptor as it lies in memory, packed so that bit 32 * word + lsb of the 1,024 bits",
            "  // is the field's bit 0. The last field here is word 0.", "  typedef struct packed {"]
    top, rows, pads = 1024, [], 0
    for f in reversed(fields):
        low = 32 * f["word"] + f["lsb"]
        if top > low + f["width"]:
            rows.append(f"    logic [{top - low - f['width'] - 1}:0] reserved{pads};")
            pads += 1
        kind = "op_e" if f["name"] == "op" else f"logic [{f['width'] - 1}:0]"
        rows.append(f"    {kind} {f['name']};")
        top = low
    assert top == 0
    out += rows + ["  } desc_t;", "", "  // A manifest as it lies in memory; the last field here is word 0.",
                   "  typedef struct packed {"]
    for f in reversed(SPEC["manifest"]):
        out.append(f"    logic [{32 * f['words'] - 1}:0] {f['name']};")
    out += ["  } manifest_t;", "",
            "  // CONFIG_ID: what a package and a build must agree on. FNV-1a over format, array size and",
            "  // scratchpad words, each as one 32-bit step; host twin: config_id() in latchkey_spec.hpp.",
            "  function automatic logic [31:0] config_id(input logic [31:0] array_n,",
            "                                            input logic [31:0] spad_words);",
            "    logic [31:0] h;",
            "    h = 32'h811c9dc5;",
            "    h = (h ^ 32'(FormatVersion)) * 32'h01000193;",
            "    h = (h ^ array_n) * 32'h01000193;",
            "    h = (h ^ spad_words) * 32'h01000193;",
            "    return h;",
            "  endfunction", "endpackage", "// verilator lint_on UNUSEDPARAM"]
    return "\n".join(out) + "\n"


def cpp():
    out = [f"// {NOTE}", "#pragma once", "", "#include <array>", "#include <cstdint>", "#include <string_view>", "",
           "namespace latchkey::spec {", ""]
    for p in SPEC["parameters"]:
        out.append(f"inline constexpr std::uint32_t {snake(p['name'])} = {p['value']};  // {p['doc']}")
    out.append(f"inline constexpr std::uint32_t build_version = 0x{build_version():x};  "
               "// Version of the project: major << 16 | minor << 8 | patch")
    for e in SPEC["enums"]:
        out += ["", f"/// {e['doc']}.", f"enum class {e['name']} : std::uint32_t {{"]
        out += [f"  {snake(v['name'])} = {v['value']},  ///< {v['doc']}" for v in e["values"]]
        out += ["};", f"/// The documented meaning of a {e['name']} value; empty when unknown.",
                f"constexpr std::string_view describe({e['name']} value) {{", "  switch (value) {"]
        out += [f"    case {e['name']}::{snake(v['name'])}: return \"{v['doc']}\";" for v in e["values"]]
        out += ["  }", "  return {};", "}"]
    out += ["", "/// Byte offsets of the registers on AXI-Lite.", "namespace reg {"]
    out += [f"inline constexpr std::uint32_t {r['name'].lower()} = 0x{r['offset']:x};  // {r['doc']}"
            for r in SPEC["registers"]]
    out += ["}  // namespace reg", ""]
    for k in SPEC["kernel_args"]:
        out += [f"/// Register offsets of the arguments of {k['kernel']}.",
                f"namespace {k['kernel'].removeprefix('latchkey_')}_arg {{"]
        out += [f"inline constexpr std::uint32_t {a['name']} = 0x{a['offset']:x};  // {a['doc']}"
                for a in k["args"]]
        out += [f"}}  // namespace {k['kernel'].removeprefix('latchkey_')}_arg", ""]
    out += [
            "/// Counters of a run, 64 bits each, from reg::counters on.",
            "enum class counter : std::uint32_t {"]
    out += [f"  {snake(c['name'])},  ///< {c['doc']}" for c in SPEC["counters"]]
    out += ["};", f"inline constexpr std::uint32_t num_counters = {len(SPEC['counters'])};",
            "inline constexpr std::array<std::string_view, num_counters> counter_names = {"]
    out += [f"    \"{snake(c['name'])}\"," for c in SPEC["counters"]]
    out += ["};", "", "/// A descriptor's fields, unpacked.", "struct descriptor {"]
    out += [f"  std::uint32_t {f['name']} = 0;  ///< {f['doc']}" for f in SPEC["descriptor"]]
    out += ["", "  /// The 32 words as they lie in memory.", "  std::array<std::uint32_t, desc_bytes / 4> pack() const {",
            "    std::array<std::uint32_t, desc_bytes / 4> w{};"]
    for f in SPEC["descriptor"]:
        mask = (1 << f["width"]) - 1
        out.append(f"    w[{f['word']}] |= ({f['name']} & 0x{mask:x}u) << {f['lsb']};")
    out += ["    return w;", "  }", "  static descriptor unpack(const std::array<std::uint32_t, desc_bytes / 4>& w) {",
            "    descriptor d;"]
    for f in SPEC["descriptor"]:
        mask = (1 << f["width"]) - 1
        out.append(f"    d.{f['name']} = (w[{f['word']}] >> {f['lsb']}) & 0x{mask:x}u;")
    out += ["    return d;", "  }", "};", "", "/// A descriptor's fields by name, in memory order.",
            "struct descriptor_field {", "  std::string_view name;",
            "  std::uint32_t descriptor::*value;", "};",
            "inline constexpr descriptor_field descriptor_fields[] = {"]
    out += [f"    {{\"{f['name']}\", &descriptor::{f['name']}}}," for f in SPEC["descriptor"]]
    out += ["};", "",
            "/// A manifest's fields in memory order; a trivially copyable image of its 128 bytes.",
            "struct manifest {"]
    for f in SPEC["manifest"]:
        kind = "std::uint32_t" if f["words"] == 1 else f"std::array<std::uint32_t, {f['words']}>"
        out.append(f"  {kind} {f['name']}{{}};  ///< {f['doc']}")
    out += ["};", "static_assert(sizeof(manifest) == 4 * manifest_words);", "",
            "/// CONFIG_ID: FNV-1a over format, array size and scratchpad words, each as one 32-bit step.",
            "constexpr std::uint32_t config_id(std::uint32_t array_n, std::uint32_t scratchpad_words) {",
            "  std::uint32_t h = 0x811c9dc5u;",
            "  for (std::uint32_t v : {std::uint32_t{format_version}, array_n, scratchpad_words})",
            "    h = (h ^ v) * 0x01000193u;", "  return h;", "}", "", "}  // namespace latchkey::spec"]
    return "\n".join(out) + "\n"


def card_image(name, kernels, units, streams=()):
    """The description that bitstreams/ packs into an xclbin: kernels, their arguments, `units` instances of
    each, and the streams between the instances of one number."""
    types = {"in_buffer": "buffer", "out_buffer": "buffer", "inout_buffer": "buffer", "u32": "u32", "f32": "f32"}
    args = {k["kernel"]: k["args"] for k in SPEC["kernel_args"]}
    out = {"comment": NOTE, "name": name, "kernels": []}
    for kernel, instance in kernels:
        out["kernels"].append({"name": kernel, "instances": [f"{instance}_{u + 1}" for u in range(units)], "args": [
            {"name": a["name"], "type": types[a["type"]], "offset": a["offset"], "comment": a["doc"]}
            for a in args.get(kernel, []) if a["type"] in types]})
    if streams:
        out["stream_connect"] = [s.format(u + 1) for u in range(units) for s in streams]
    return json.dumps(out, indent=1) + "\n"


def markdown():
    out = [f"<!-- {NOTE} -->", "# Registers, descriptors and formats", "",
           "Everything is little-endian. `spec/latchkey.json` is the source; the RTL, the host and this page are generated from it.",
           "", "## Registers", "", "| offset | name | access | meaning |", "|---|---|---|---|"]
    out += [f"| 0x{r['offset']:04x} | {r['name']} | {r['access']} | {r['doc']} |" for r in SPEC["registers"]]
    for k in SPEC["kernel_args"]:
        out += ["", f"## Arguments of {k['kernel']}", "", "| offset | name | type | meaning |", "|---|---|---|---|"]
        out += [f"| 0x{a['offset']:04x} | {a['name']} | {a['type']} | {a['doc']} |" for a in k["args"]]
    out += ["", "## Counters", "", "| address | name | counts |", "|---|---|---|"]
    base = next(r["offset"] for r in SPEC["registers"] if r["name"] == "COUNTERS")
    out += [f"| 0x{base + 8 * i:04x} | {snake(c['name'])} | {c['doc']} |" for i, c in enumerate(SPEC["counters"])]
    for e in SPEC["enums"]:
        out += ["", f"## {e['name']}", "", f"{e['doc']}.", "", "| value | name | meaning |", "|---|---|---|"]
        out += [f"| {v['value']} | {snake(v['name'])} | {v['doc']} |" for v in e["values"]]
    out += ["", "## Descriptor (128 bytes)", "", "| word | bits | field | meaning |", "|---|---|---|---|"]
    out += [f"| {f['word']} | {f['lsb'] + f['width'] - 1}:{f['lsb']} | {f['name']} | {f['doc']} |"
            for f in SPEC["descriptor"]]
    out += ["", "## Manifest (128 bytes)", "", "| word | words | field | meaning |", "|---|---|---|---|"]
    out += [f"| {f['word']} | {f['words']} | {f['name']} | {f['doc']} |" for f in SPEC["manifest"]]
    out += ["", "## Parameters", "", "| name | value | meaning |", "|---|---|---|"]
    out += [f"| {p['name']} | {p['value']} | {p['doc']} |" for p in SPEC["parameters"]]
    for part in SPEC["messages"]:
        out += ["", f"## {part['name']}", "", part["doc"], "", "| word | field | meaning |", "|---|---|---|"]
        word = 0
        for f in part["fields"]:
            last = word + f["words"] - 1
            out.append(f"| {word}{'' if last == word else f'..{last}'} | {f['name']} | {f['doc']} |")
            word += f["words"]
    return "\n".join(out) + "\n"


def main():
    check_spec()
    files = {"rtl/lk_pkg.sv": systemverilog(), "spec/generated/latchkey_spec.hpp": cpp(),
             "docs/registers.md": markdown(),
             **{f"spec/generated/{kind}_kernels{suffix}.json": card_image(*design, units, streams)
                for suffix, units in (("", 1), ("_x2", 2))
                for kind, design, streams in (
                    ("compute", ("latchkey", [("latchkey_core", "core"), ("latchkey_input", "input"),
                                              ("latchkey_output", "output")]),
                     ("input_{0}.out:core_{0}.s_axis_in", "core_{0}.m_axis_out:output_{0}.in")),
                    ("enrol", ("latchkey_enrol", [("latchkey_enrol", "enrol")]), ()))}}
    drifted = [name for name, text in files.items()
               if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if "--check" in sys.argv[1:]:
        for name in drifted:
            print(f"{name}: differs from spec/latchkey.json; run spec/generate.py and commit the result")
        return 1 if drifted else 0
    for name in drifted:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(files[name])
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
