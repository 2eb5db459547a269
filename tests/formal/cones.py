"""Where a secret can reach: forward propagation through a flattened netlist.

A bit is reached when some cell output depends on a reached input, whatever the other inputs are: more
than what can flow, never less. Muxes, registers, bitwise operators and memory columns are followed bit
by bit, arithmetic from a bit upwards, every other cell from all inputs to all outputs. Declassified
wires stop it: each is a decision that the design makes public on purpose, listed with its reason.
"""
import collections
import json
import re

# Cells whose output bit i depends on bit i of each data input.
BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$pos", "$buf"}
FLIP_FLOPS = {"$dff", "$dffe", "$adff", "$adffe", "$aldff", "$aldffe", "$sdff", "$sdffe", "$sdffce", "$ff",
              "$dffsr", "$dffsre", "$dlatch", "$adlatch"}
UPWARDS = {"$add", "$sub", "$mul", "$neg", "$macc", "$alu"}
MEMORY_READ, MEMORY_WRITE = "$memrd_v2", "$memwr_v2"


class Netlist:
    """One flattened module of a yosys JSON file."""

    def __init__(self, path, top):
        module = json.loads(path.read_text())["modules"][top]
        self.cells = module["cells"]
        self.ports = module["ports"]
        self.wires = {name: net["bits"] for name, net in module["netnames"].items()}
        self.users = collections.defaultdict(list)  # bit -> [(cell, port, index)]
        self.readers = collections.defaultdict(list)  # memory -> read cells
        for name, cell in self.cells.items():
            if cell["type"] == MEMORY_READ:
                self.readers[self.memory(cell)].append(name)
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    for i, bit in enumerate(bits):
                        if isinstance(bit, int):
                            self.users[bit].append((name, port, i))
        self.names = {}  # bit -> (wire, index), the shortest public name
        for name, bits in self.wires.items():
            for i, bit in enumerate(bits):
                if isinstance(bit, int):
                    old = self.names.get(bit)
                    if old is None or (("$" in name), len(name)) < (("$" in old[0]), len(old[0])):
                        self.names[bit] = (name, i)

    @staticmethod
    def memory(cell):
        return cell["parameters"]["MEMID"].lstrip("\\")

    def find(self, pattern):
        """The bits of every wire, and (memory, column) of every memory, whose whole name matches."""
        expression = re.compile(pattern)
        bits = [b for name, net in self.wires.items() if expression.fullmatch(name) for b in net
                if isinstance(b, int)]
        for memory, readers in self.readers.items():
            if expression.fullmatch(memory):
                width = len(self.cells[readers[0]]["connections"]["DATA"])
                bits += [(memory, i) for i in range(width)]
        return bits

    def name(self, bit):
        if isinstance(bit, tuple):
            return f"{bit[0]}[..][{bit[1]}]"
        wire, i = self.names.get(bit, ("?", 0))
        return f"{wire}[{i}]" if len(self.wires.get(wire, [0])) > 1 else wire

    def outputs(self, name, port, index):
        """What input bit `index` of `port` reaches: bits and (memory, column)."""
        cell = self.cells[name]
        kind, nets = cell["type"], cell["connections"]
        if kind == MEMORY_WRITE:
            memory = self.memory(cell)
            if port in ("DATA", "EN"):
                return [(memory, index)]
            return [(memory, i) for i in range(len(nets["DATA"]))] if port == "ADDR" else []
        if kind == MEMORY_READ:
            return nets["DATA"]
        if kind in FLIP_FLOPS:
            if port in ("D", "AD"):
                return [nets["Q"][index]]
            return nets["Q"] if port != "CLK" else []
        if kind in BITWISE:
            y = nets["Y"]
            other = nets.get("B" if port == "A" else "A")
            if kind in ("$and", "$or") and other is not None and index < len(other):
                if other[index] == ("0" if kind == "$and" else "1"):
                    return []
            # The last bit may be extended.
            return [y[index]] if index < len(nets[port]) - 1 and index < len(y) else y[index:]
        if kind == "$mux":
            if port == "S":
                return [y for y, a, b in zip(nets["Y"], nets["A"], nets["B"]) if a != b]
            return [nets["Y"][index]]
        if kind in ("$pmux", "$bmux") and port in ("A", "B"):
            return [nets["Y"][index % len(nets["Y"])]]
        if kind == "$bwmux":
            return [nets["Y"][index]]
        if kind in UPWARDS:
            return nets["Y"][index:]
        return [bit for p, bits in nets.items() if cell["port_directions"][p] == "output" for bit in bits]


def reach(netlist, sources, declassified):
    """{bit or memory column: where it was reached from}; sources map to None."""
    came_from = {bit: None for bit in sources if bit not in declassified}
    work = collections.deque(came_from)
    while work:
        item = work.popleft()
        if isinstance(item, tuple):
            memory, column = item
            following = [netlist.cells[r]["connections"]["DATA"][column] for r in netlist.readers[memory]]
        else:
            following = [out for user in netlist.users[item] for out in netlist.outputs(*user)]
        for out in following:
            if isinstance(out, str) or out in came_from or out in declassified:
                continue
            came_from[out] = item
            work.append(out)
    return came_from


def path(netlist, came_from, bit, limit=40):
    """Names on one way from a source to the bit, each wire once."""
    steps = []
    while bit is not None:
        name = netlist.name(bit)
        if "$" not in name and (not steps or steps[-1].split("[")[0] != name.split("[")[0]):
            steps.append(name)
        bit = came_from[bit]
    steps.reverse()
    return steps if len(steps) <= limit else steps[:limit // 2] + ["..."] + steps[-limit // 2:]
