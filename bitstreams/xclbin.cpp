// latchkey_xclbin: packs a simulation model and a description of its kernels into an xclbin.
//
//   latchkey_xclbin --kernels kernels.json --model model.so --output name.xclbin
//
// The container is the one of xclbin.h: a header, section headers, sections aligned to 8 bytes. The
// UUID is a hash of everything else in the file, so equal inputs give equal files. See README.md
// for the JSON.
#include <uuid/uuid.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <xclbin.h>

namespace {

using json = nlohmann::ordered_json;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t cu_base = 0x1800000;
constexpr std::uint64_t cu_range = 0x10000;
constexpr std::uint32_t first_argument = 0x10;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

std::uint64_t number(const json& value, const std::string& what) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    std::size_t used = 0;
    std::uint64_t n = 0;
    try {
      n = std::stoull(text, &used, 0);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != 0 && used == text.size()) return n;
  }
  fail(what + " is not a number: " + value.dump());
}

Bytes read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

template <class T>
void append(Bytes& to, const T& value) {
  const auto* p = reinterpret_cast<const std::uint8_t*>(&value);
  to.insert(to.end(), p, p + sizeof(value));
}

template <std::size_t N>
void set_text(unsigned char (&field)[N], const std::string& text, const std::string& what) {
  if (text.size() >= N) fail(what + " '" + text + "' is longer than " + std::to_string(N - 1));
  std::memcpy(field, text.data(), text.size());
}

struct Argument {
  std::string name, c_type, port;
  bool global = false;
  std::uint32_t offset = 0, size = 0;
  std::vector<std::size_t> banks;
};

struct Kernel {
  std::string name;
  std::vector<std::string> instances;
  std::vector<Argument> arguments;
};

struct Bank {
  std::string tag, type;
  std::uint64_t base = 0, size_kb = 0;
};

struct Design {
  std::string name;
  unsigned clock_mhz = 300;
  std::vector<Bank> banks;
  std::vector<Kernel> kernels;
  std::vector<std::string> streams;
};

std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::toupper(c); });
  return s;
}

void check_keys(const json& object, const std::vector<std::string>& known,
                const std::string& what) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail(what + " has an unknown key '" + key + "'");
    }
  }
}

Design parse(const json& j) {
  Design d;
  check_keys(j, {"name", "clock_mhz", "memory", "kernels", "stream_connect", "comment"},
             "the design");
  d.name = j.at("name").get<std::string>();
  d.clock_mhz = j.value("clock_mhz", 300u);
  if (j.contains("memory")) {
    for (const json& m : j.at("memory")) {
      check_keys(m, {"tag", "type", "base", "size_kb"}, "a memory bank");
      d.banks.push_back({m.at("tag").get<std::string>(), m.value("type", "ddr4"),
                         number(m.at("base"), "base"), number(m.at("size_kb"), "size_kb")});
    }
  } else {
    // Above 4 GiB on purpose: a kernel that drops the upper half of an address fails here too.
    d.banks.push_back({"bank0", "ddr4", std::uint64_t{0x4000000000}, std::uint64_t{16} << 20});
  }
  for (const json& jk : j.at("kernels")) {
    Kernel k;
    check_keys(jk, {"name", "instances", "args", "comment"}, "a kernel");
    k.name = jk.at("name").get<std::string>();
    k.instances = jk.at("instances").get<std::vector<std::string>>();
    if (k.instances.empty()) fail("kernel " + k.name + " has no instance");
    std::uint32_t next = first_argument;
    for (const json& ja : jk.value("args", json::array())) {
      Argument a;
      a.name = ja.at("name").get<std::string>();
      const std::string what = "kernel " + k.name + ", argument " + a.name;
      check_keys(ja, {"name", "type", "port", "bank", "offset", "comment"}, what);
      const auto type = ja.at("type").get<std::string>();
      if (type == "buffer") {
        a.global = true;
        a.c_type = "void*";
        a.size = 8;
        a.port = ja.value("port", "m_axi_gmem");
        const auto tag = ja.value("bank", d.banks.front().tag);
        const auto bank = std::find_if(d.banks.begin(), d.banks.end(),
                                       [&](const Bank& b) { return b.tag == tag; });
        if (bank == d.banks.end()) fail(what + ": no memory bank '" + tag + "'");
        a.banks.push_back(static_cast<std::size_t>(bank - d.banks.begin()));
      } else {
        static const std::map<std::string, std::pair<const char*, std::uint32_t>> scalars = {
            {"u32", {"uint", 4}},
            {"i32", {"int", 4}},
            {"u64", {"unsigned long", 8}},
            {"f32", {"float", 4}}};
        const auto it = scalars.find(type);
        if (it == scalars.end()) fail(what + ": type is buffer, u32, i32, u64 or f32, not " + type);
        a.c_type = it->second.first;
        a.size = it->second.second;
        a.port = "s_axi_control";
      }
      next = (next + a.size - 1) / a.size * a.size;
      a.offset = ja.contains("offset")
                     ? static_cast<std::uint32_t>(number(ja.at("offset"), what + ": offset"))
                     : next;
      if (a.offset < first_argument || a.offset % 4 != 0 || a.offset + a.size > cu_range) {
        fail(what + ": offset must be a multiple of 4 from 0x10 and within 64 KiB");
      }
      next = a.offset + a.size;
      k.arguments.push_back(std::move(a));
    }
    d.kernels.push_back(std::move(k));
  }
  if (d.kernels.empty()) fail("the design has no kernel");
  d.streams = j.value("stream_connect", std::vector<std::string>{});
  return d;
}

Bytes mem_topology_section(const Design& d) {
  Bytes out;
  append(out, static_cast<std::int32_t>(d.banks.size()));
  append(out, std::uint32_t{0});  // padding before the entries
  for (const Bank& b : d.banks) {
    mem_data m{};
    if (b.type != "ddr4" && b.type != "hbm") fail("memory type is ddr4 or hbm, not " + b.type);
    m.m_type = b.type == "hbm" ? MEM_HBM : MEM_DDR4;
    m.m_used = 1;
    m.m_size = b.size_kb;
    m.m_base_address = b.base;
    set_text(m.m_tag, b.tag, "memory tag");
    append(out, m);
  }
  return out;
}

struct Unit {
  const Kernel* kernel;
  std::string instance;
  std::uint64_t base;
};

std::vector<Unit> units_of(const Design& d) {
  std::vector<Unit> units;
  for (const Kernel& k : d.kernels) {
    for (const std::string& instance : k.instances) {
      units.push_back({&k, instance, cu_base + units.size() * cu_range});
    }
  }
  return units;
}

Bytes ip_layout_section(const std::vector<Unit>& units) {
  Bytes out;
  append(out, static_cast<std::int32_t>(units.size()));
  append(out, std::uint32_t{0});
  std::uint32_t interrupt = 0;
  for (const Unit& u : units) {
    ip_data ip{};
    ip.m_type = IP_KERNEL;
    ip.properties = IP_INT_ENABLE_MASK | interrupt++ << IP_INTERRUPT_ID_SHIFT |
                    static_cast<std::uint32_t>(AP_CTRL_CHAIN) << IP_CONTROL_SHIFT;
    ip.m_base_address = u.base;
    set_text(ip.m_name, u.kernel->name + ":" + u.instance, "compute unit");
    append(out, ip);
  }
  return out;
}

Bytes connectivity_section(const std::vector<Unit>& units) {
  std::vector<connection> list;
  for (std::size_t i = 0; i < units.size(); ++i) {
    const auto& arguments = units[i].kernel->arguments;
    for (std::size_t a = 0; a < arguments.size(); ++a) {
      for (const std::size_t bank : arguments[a].banks) {
        list.push_back({static_cast<std::int32_t>(a), static_cast<std::int32_t>(i),
                        static_cast<std::int32_t>(bank)});
      }
    }
  }
  Bytes out;
  append(out, static_cast<std::int32_t>(list.size()));
  for (const connection& c : list) append(out, c);
  return out;
}

Bytes clock_section(const Design& d) {
  Bytes out(offsetof(clock_freq_topology, m_clock_freq));
  out[0] = 1;  // one entry
  clock_freq c{};
  c.m_freq_Mhz = static_cast<std::uint16_t>(d.clock_mhz);
  c.m_type = CT_DATA;
  std::snprintf(c.m_name, sizeof(c.m_name), "KERNEL_CLK");
  append(out, c);
  return out;
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string hex(std::uint64_t v) {
  std::ostringstream s;
  s << "0x" << std::hex << v;
  return s.str();
}

Bytes metadata_section(const Design& d, const std::vector<Unit>& units) {
  std::ostringstream x;
  x << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    << "<project name=\"" << escape(d.name) << "\">\n"
    << "  <platform vendor=\"latchkey\" boardid=\"sim\" name=\"sim\" featureRomTime=\"0\">\n"
    << "    <version major=\"1\" minor=\"0\"/>\n"
    << "    <description/>\n"
    << "    <device name=\"fpga0\" fpgaDevice=\"latchkey:sim\" addrWidth=\"64\">\n"
    << "      <core name=\"OCL_REGION_0\" target=\"hw_em\" type=\"clc_region\" clockFreq=\""
    << d.clock_mhz << "MHz\" numComputeUnits=\"" << units.size() << "\">\n"
    << "        <kernelClocks>\n"
    << "          <clock port=\"KERNEL_CLK\" frequency=\"" << d.clock_mhz << ".0MHz\"/>\n"
    << "        </kernelClocks>\n";
  for (const Kernel& k : d.kernels) {
    x << "        <kernel name=\"" << escape(k.name)
      << "\" language=\"ip\" vlnv=\"latchkey:sim:" << escape(k.name)
      << ":1.0\" attributes=\"\" type=\"pl\" hwControlProtocol=\"ap_ctrl_chain\">\n";
    std::vector<std::string> ports;
    for (const Argument& a : k.arguments) {
      if (a.global && std::find(ports.begin(), ports.end(), a.port) == ports.end()) {
        ports.push_back(a.port);
      }
    }
    for (const std::string& port : ports) {
      x << "          <port name=\"" << escape(upper(port))
        << "\" mode=\"master\" range=\"0xFFFFFFFFFFFFFFFF\" dataWidth=\"512\" "
           "portType=\"addressable\" base=\"0x0\"/>\n";
    }
    x << "          <port name=\"S_AXI_CONTROL\" mode=\"slave\" range=\"" << hex(cu_range)
      << "\" dataWidth=\"32\" portType=\"addressable\" base=\"0x0\"/>\n";
    for (std::size_t i = 0; i < k.arguments.size(); ++i) {
      const Argument& a = k.arguments[i];
      x << "          <arg name=\"" << escape(a.name) << "\" addressQualifier=\""
        << (a.global ? 1 : 0) << "\" id=\"" << i << "\" port=\"" << escape(upper(a.port))
        << "\" size=\"" << hex(a.size) << "\" offset=\"" << hex(a.offset)
        << "\" hostOffset=\"0x0\" hostSize=\"" << hex(a.size) << "\" type=\"" << a.c_type
        << "\"/>\n";
    }
    for (const Unit& u : units) {
      if (u.kernel != &k) continue;
      x << "          <instance name=\"" << escape(u.instance) << "\">\n"
        << "            <addrRemap base=\"" << hex(u.base) << "\" range=\"" << hex(cu_range)
        << "\" port=\"S_AXI_CONTROL\"/>\n"
        << "          </instance>\n";
    }
    x << "        </kernel>\n";
  }
  x << "      </core>\n    </device>\n  </platform>\n</project>\n";
  const std::string text = x.str();
  return {text.begin(), text.end()};
}

// The streams between kernels, as the card reads them (sim/platform, stream_connections()).
Bytes stream_section(const Design& d) {
  const std::string text = json{{"stream_connect", d.streams}}.dump();
  return {text.begin(), text.end()};
}

// FNV-1a, twice with different starts: an identifier, not a security feature.
void content_uuid(const Bytes& file, xuid_t uuid) {
  std::array<std::uint64_t, 2> h = {0xcbf29ce484222325, 0x84222325cbf29ce4};
  for (const std::uint8_t byte : file) {
    for (std::uint64_t& v : h) v = (v ^ byte) * 0x100000001b3;
    h[1] += h[0] >> 29;
  }
  std::memcpy(uuid, h.data(), 16);
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0F) | 0x80);  // version 8, vendor-specific
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3F) | 0x80);
}

Bytes pack(const Design& d, const Bytes& model) {
  const std::vector<Unit> units = units_of(d);
  struct Section {
    axlf_section_kind kind;
    const char* name;
    Bytes data;
  };
  const std::vector<Section> sections = {
      {MEM_TOPOLOGY, "mem_topology", mem_topology_section(d)},
      {IP_LAYOUT, "ip_layout", ip_layout_section(units)},
      {CONNECTIVITY, "connectivity", connectivity_section(units)},
      {CLOCK_FREQ_TOPOLOGY, "clock_freq", clock_section(d)},
      {EMBEDDED_METADATA, "metadata", metadata_section(d, units)},
      {ASK_GROUP_TOPOLOGY, "group_topology", mem_topology_section(d)},
      {ASK_GROUP_CONNECTIVITY, "group_conn", connectivity_section(units)},
      {USER_METADATA, "streams", stream_section(d)},
      {EMULATION_DATA, "model", model},
  };

  axlf top{};
  std::memcpy(top.m_magic, "xclbin2", 8);
  top.m_signature_length = -1;
  std::memset(top.reserved, 0xFF, sizeof(top.reserved));
  std::memset(top.m_keyBlock, 0xFF, sizeof(top.m_keyBlock));
  top.m_header.m_versionMajor = 2;
  top.m_header.m_versionMinor = 13;
  top.m_header.m_mode = XCLBIN_HW_EMU;
  set_text(top.m_header.m_platformVBNV, "latchkey_sim_1_0", "platform");
  top.m_header.m_numSections = static_cast<std::uint32_t>(sections.size());

  constexpr std::size_t header_bytes = offsetof(axlf, m_sections);
  const std::size_t table = header_bytes + sections.size() * sizeof(axlf_section_header);
  Bytes file((table + 7) / 8 * 8);
  std::vector<axlf_section_header> headers;
  for (const Section& s : sections) {
    axlf_section_header h{};
    h.m_sectionKind = s.kind;
    std::snprintf(h.m_sectionName, sizeof(h.m_sectionName), "%s", s.name);
    h.m_sectionOffset = file.size();
    h.m_sectionSize = s.data.size();
    headers.push_back(h);
    file.insert(file.end(), s.data.begin(), s.data.end());
    file.resize((file.size() + 7) / 8 * 8);
  }
  top.m_header.m_length = file.size();
  std::memcpy(file.data(), &top, header_bytes);
  std::memcpy(file.data() + header_bytes, headers.data(),
              headers.size() * sizeof(axlf_section_header));
  content_uuid(file, top.m_header.uuid);
  std::memcpy(file.data(), &top, header_bytes);
  return file;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Packs a simulation model and its kernel description into an xclbin");
  std::string kernels, model, output;
  app.add_option("--kernels", kernels, "kernel description (JSON)")->required();
  app.add_option("--model", model, "simulation model (shared library)")->required();
  app.add_option("--output", output, "the xclbin to write")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    const Bytes text = read_file(kernels);
    const Design design = parse(json::parse(text));
    const Bytes file = pack(design, read_file(model));
    std::ofstream stream(output, std::ios::binary | std::ios::trunc);
    stream.write(reinterpret_cast<const char*>(file.data()),
                 static_cast<std::streamsize>(file.size()));
    stream.close();
    if (!stream) fail("cannot write " + output);
  } catch (const std::exception& e) {
    std::cerr << "latchkey_xclbin: " << kernels << ": " << e.what() << '\n';
    return 1;
  }
  return 0;
}
