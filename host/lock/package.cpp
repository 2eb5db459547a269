#include "lock/package.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"

namespace latchkey::lock {
namespace {

constexpr char magic[] = "LKXP";
constexpr std::size_t preamble_bytes = 64;

[[noreturn]] void bad(const std::string& what, const std::string& message) {
  throw error(errc::bad_file, what + ": " + message);
}

std::uint64_t file_bytes(std::uint64_t header, std::uint64_t pages) {
  return preamble_bytes + header + 4 * spec::manifest_words + wrapped_key_bytes +
         pages * (spec::tag_bytes + spec::page_bytes);
}

bytes make_preamble(std::uint64_t header, std::uint64_t pages) {
  bytes out(magic, magic + 4);
  io::put_u32(out, spec::format_version);
  io::put_u64(out, header);
  io::put_u64(out, pages);
  io::put_u64(out, file_bytes(header, pages));
  out.resize(preamble_bytes);
  return out;
}

std::array<std::uint32_t, 4> to_words(std::span<const std::uint8_t, 16> b) {
  std::array<std::uint32_t, 4> w{};
  for (std::size_t i = 0; i < 16; ++i) w[i / 4] |= std::uint32_t{b[i]} << (8 * (i % 4));
  return w;
}

device_id to_id(const std::array<std::uint32_t, 4>& w) {
  device_id id{};
  for (std::size_t i = 0; i < 16; ++i) id[i] = static_cast<std::uint8_t>(w[i / 4] >> (8 * (i % 4)));
  return id;
}

std::array<std::uint32_t, 4> model_id(byte_view preamble, byte_view header) {
  const auto digest = io::sha256({preamble, header});
  return to_words(std::span(digest).first<16>());
}

std::array<std::uint8_t, 32> hash(const spec::manifest& m) {
  const manifest_bytes b = to_bytes(m);
  return io::sha256({b});
}

std::string hex32(std::uint32_t v) {
  std::string s = "0x00000000";
  for (int i = 9; i > 1; --i, v >>= 4) s[static_cast<std::size_t>(i)] = "0123456789abcdef"[v & 15];
  return s;
}

/// The regions must cover the pages in order, descriptors first.
void check_regions(const std::vector<compiler::page_region>& regions, std::uint64_t num_pages,
                   const std::string& what) {
  std::uint64_t next = 0;
  std::uint32_t last = 0;
  for (const auto& r : regions) {
    if (r.first != next || (next == 0 ? r.region != 0 : r.region <= last))
      bad(what, "the page regions are not contiguous and ascending from 0");
    next += r.count;
    last = r.region;
  }
  if (next != num_pages || next == 0) {
    bad(what, "the regions hold " + std::to_string(next) + " pages, the package " +
                  std::to_string(num_pages));
  }
}

/// Everything that the public parts say about each other.
void check_public(const package& p, const std::string& what) {
  const spec::manifest& m = p.manifest;
  const auto field = [&](const char* name, std::uint64_t have, std::uint64_t want) {
    if (have != want) {
      bad(what, std::string("manifest: ") + name + " is " + std::to_string(have) + ", expected " +
                    std::to_string(want));
    }
  };
  if (m.magic != manifest_magic) bad(what, "the manifest does not begin with 'LKMF'");
  field("format", m.format, spec::format_version);
  field("lock_kinds", m.lock_kinds, lock_aes_gcm);
  field("config_id", m.config_id, p.info.target.config_id());
  field("num_pages", m.num_pages, p.pages.size() / spec::page_bytes);
  field("max_batch", m.max_batch, p.info.max_batch);
  field("input_words", m.input_words, p.info.input.layout.words);
  field("output_words", m.output_words, p.info.output.layout.words);
  field("spill_pages", m.spill_pages, p.info.spill_pages);
  field("licence_flags", m.licence_flags & ~licence_ticket, 0);
  field("expiry", m.expiry[0] | std::uint64_t{m.expiry[1]} << 32, 0);
  for (const std::uint32_t word : m.reserved) field("a reserved word", word, 0);
  if (m.version == 0) bad(what, "manifest: version is 0");
  if (m.slot >= spec::owner_slots) bad(what, "manifest: slot is above 7");
  if (m.max_batch == 0) bad(what, "manifest: max_batch is 0");
  if (m.num_descs < 2 || m.num_descs > spec::max_descs)
    bad(what, "manifest: num_descs is " + std::to_string(m.num_descs) + "; a chip takes 2 to " +
                  std::to_string(spec::max_descs));
  check_regions(p.info.regions, m.num_pages, what);
  field("desc_pages", m.desc_pages, p.info.regions[0].count);
  constexpr std::uint32_t per_page = spec::page_bytes / spec::desc_bytes;
  field("desc_pages", m.desc_pages, (m.num_descs + per_page - 1) / per_page);
}

}  // namespace

manifest_bytes to_bytes(const spec::manifest& m) {
  const auto words = std::bit_cast<std::array<std::uint32_t, spec::manifest_words>>(m);
  manifest_bytes b{};
  for (std::size_t i = 0; i < b.size(); ++i)
    b[i] = static_cast<std::uint8_t>(words[i / 4] >> (8 * (i % 4)));
  return b;
}

spec::manifest manifest_from_bytes(std::span<const std::uint8_t, 4 * spec::manifest_words> b) {
  std::array<std::uint32_t, spec::manifest_words> words{};
  for (std::size_t i = 0; i < b.size(); ++i) words[i / 4] |= std::uint32_t{b[i]} << (8 * (i % 4));
  return std::bit_cast<spec::manifest>(words);
}

device_id package::device() const { return to_id(manifest.device_id); }

package seal(const compiler::program& program, const device_record& record,
             const seal_options& options) {
  compiler::check(program, "program '" + program.name + "'");
  check(record.pub, "device record");
  const std::uint32_t config = program.target.config_id();
  if (options.version == 0)
    throw error(errc::usage, "a package's version begins with 1: 0 is what a chip never accepts");
  const auto& configs = record.pub.config_ids;
  if (!configs.empty() && std::find(configs.begin(), configs.end(), config) == configs.end()) {
    throw error(errc::mismatch,
                "program '" + program.name + "' is for build configuration " + hex32(config) +
                    " (array " + std::to_string(program.target.array_n) + ", scratchpad " +
                    std::to_string(program.target.spad_words) + " words), which device " +
                    io::to_hex(record.pub.id) + " is not used with: compile for its build");
  }
  const owner_key& owner =
      record.at(options.slot, "the record of device " + io::to_hex(record.pub.id));

  package p;
  p.info = program;
  p.info.pages.clear();
  p.info.descriptors.clear();
  if (!options.publish_layers) p.info.layers.clear();
  const std::string text = compiler::to_json(program, options.publish_layers)
                               .dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  p.header.assign(text.begin(), text.end());

  spec::manifest& m = p.manifest;
  m.magic = manifest_magic;
  m.format = spec::format_version;
  m.model_id = model_id(make_preamble(p.header.size(), program.num_pages()), p.header);
  m.version = options.version;
  m.config_id = config;
  m.device_id = to_words(std::span(record.pub.id));
  m.num_pages = program.num_pages();
  m.desc_pages = program.regions[0].count;
  m.num_descs = static_cast<std::uint32_t>(program.descriptors.size());
  m.lock_kinds = lock_aes_gcm;
  m.slot = owner.slot;
  m.epoch = options.epoch.value_or(owner.epoch);
  m.licence_flags = options.needs_ticket ? licence_ticket : 0;
  m.max_batch = program.max_batch;
  m.input_words = program.input.layout.words;
  m.output_words = program.output.layout.words;
  m.spill_pages = program.spill_pages;

  const model_key dek = random_model_key();
  p.key = wrap_model_key(owner.kek(m.epoch), dek, hash(m));
  page_cipher cipher(dek);
  p.tags.resize(std::size_t{m.num_pages} * spec::tag_bytes);
  p.pages.resize(program.pages.size());
  for (const compiler::page_region& r : program.regions) {
    for (std::uint32_t i = 0; i < r.count; ++i) {
      const std::size_t n = std::size_t{r.first} + i;
      cipher.seal(page_iv(m.version, static_cast<std::uint16_t>(r.region), i),
                  program.page(r.first + i),
                  std::span(p.pages).subspan(n * spec::page_bytes, spec::page_bytes),
                  std::span(p.tags).subspan(n * spec::tag_bytes).first<spec::tag_bytes>());
    }
  }
  return p;
}

namespace {

/// Opens the wrapped key and checks that it holds the manifest; throws refused.
model_key open_wrapped(const package& p, const key_encryption_key& kek, const std::string& what) {
  model_key dek;
  std::array<std::uint8_t, 32> bound{};
  if (!unwrap_model_key(kek, p.key, dek, bound)) {
    throw error(errc::refused, what +
                                   ": the wrapped key does not open: it was changed, or wrapped "
                                   "for another device, slot or epoch");
  }
  if (CRYPTO_memcmp(bound.data(), hash(p.manifest).data(), bound.size()) != 0) {
    throw error(errc::refused,
                what + ": the manifest is not the one that was sealed with the model key");
  }
  return dek;
}

}  // namespace

bool rewrap(package& p, const device_record& record, const rewrap_options& options,
            const std::string& what) {
  if (p.device() != record.pub.id) {
    throw error(errc::mismatch, what + ": locked for device " + io::to_hex(p.device()) +
                                    ", the record is of " + io::to_hex(record.pub.id));
  }
  const owner_key& owner = record.at(p.manifest.slot, what);
  const model_key dek = open_wrapped(p, owner.kek(p.manifest.epoch), what);
  spec::manifest m = p.manifest;
  m.epoch = options.epoch.value_or(owner.epoch);
  if (options.needs_ticket) m.licence_flags = *options.needs_ticket ? licence_ticket : 0;
  if (hash(m) == hash(p.manifest)) return false;
  p.key = wrap_model_key(owner.kek(m.epoch), dek, hash(m));
  p.manifest = m;
  return true;
}

void write_package(const std::string& path, const package& p) {
  const manifest_bytes m = to_bytes(p.manifest);
  io::write_file(
      path, {make_preamble(p.header.size(), p.num_pages()), p.header, m, p.key, p.tags, p.pages});
}

package parse_package(byte_view file, const std::string& name) {
  io::reader in(name, file);
  const byte_view m = in.take(4, "the magic");
  if (std::memcmp(m.data(), magic, 4) != 0)
    in.fail("not a Latchkey package: it does not begin with 'LKXP'", 0);
  if (const auto f = in.u32("the format version"); f != spec::format_version) {
    in.fail("package format " + std::to_string(f) + "; this version reads format " +
                std::to_string(spec::format_version) + ": lock the model again",
            4);
  }
  const std::uint64_t header_size = in.u64("the header's length");
  const std::uint64_t num_pages = in.u64("the number of pages");
  const std::uint64_t length = in.u64("the file's length");
  if (header_size > io::max_header_bytes)
    in.fail("absurd header length " + std::to_string(header_size), 8);
  if (num_pages == 0 || num_pages > io::max_file_bytes / spec::page_bytes)
    in.fail("absurd number of pages " + std::to_string(num_pages), 16);
  if (length != file_bytes(header_size, num_pages))
    in.fail("the lengths of the parts do not add up to the file's", 24);
  if (file.size() < length) {
    in.fail("truncated: " + std::to_string(file.size()) + " of " + std::to_string(length) +
                " bytes are there",
            file.size());
  }
  if (file.size() > length)
    in.fail(std::to_string(file.size() - length) + " bytes follow the end of the package", length);
  const byte_view zero = in.take(preamble_bytes - in.offset(), "the preamble");
  if (!std::all_of(zero.begin(), zero.end(), [](std::uint8_t b) { return b == 0; }))
    in.fail("reserved bytes are not zero", 32);

  package p;
  const byte_view header = in.take(header_size, "the header");
  p.header.assign(header.begin(), header.end());
  p.manifest = manifest_from_bytes(
      in.take(4 * spec::manifest_words, "the manifest").first<4 * spec::manifest_words>());
  const byte_view key = in.take(wrapped_key_bytes, "the wrapped key");
  std::copy(key.begin(), key.end(), p.key.begin());
  const byte_view tags = in.take(num_pages * spec::tag_bytes, "the tag table");
  p.tags.assign(tags.begin(), tags.end());
  const byte_view pages = in.take(num_pages * spec::page_bytes, "the pages");
  p.pages.assign(pages.begin(), pages.end());

  if (p.manifest.model_id != model_id(file.first(preamble_bytes), header)) {
    in.fail(
        "the header does not hash to the manifest's model_id: the header or the manifest was "
        "changed",
        preamble_bytes);
  }
  const std::string where = name + ": header (offset " + std::to_string(preamble_bytes) + ")";
  compiler::from_json(io::parse_json(header, where), where, p.info);
  check_public(p, name);
  return p;
}

package read_package(const std::string& path) { return parse_package(io::read_file(path), path); }

void check_for(const package& p, const device_id& device, std::uint32_t config_id,
               const std::string& what) {
  if (p.device() != device) {
    throw error(errc::mismatch, what + ": locked for device " + io::to_hex(p.device()) +
                                    ", not for this one, " + io::to_hex(device) +
                                    ": ask the model's owner for a package for this device");
  }
  if (p.manifest.config_id != config_id) {
    throw error(errc::mismatch,
                what + ": made for build configuration " + hex32(p.manifest.config_id) +
                    " (array " + std::to_string(p.info.target.array_n) + ", scratchpad " +
                    std::to_string(p.info.target.spad_words) + " words), the card runs " +
                    hex32(config_id) + ": load the matching bitstream or compile and lock again");
  }
}

compiler::program unseal(const package& p, const key_encryption_key& kek, const std::string& what) {
  check_public(p, what);
  if (p.tags.size() != std::size_t{p.num_pages()} * spec::tag_bytes)
    bad(what, "the tag table does not match the number of pages");
  const model_key dek = open_wrapped(p, kek, what);
  // The manifest is authentic now, and so is what it binds; a package that did not come from
  // parse_package has not been through this check.
  if (p.manifest.model_id != model_id(make_preamble(p.header.size(), p.num_pages()), p.header))
    throw error(errc::refused, what + ": the header is not the one that was sealed");

  compiler::program program = p.info;
  program.pages.resize(p.pages.size());
  page_cipher cipher(dek);
  for (const compiler::page_region& r : program.regions) {
    for (std::uint32_t i = 0; i < r.count; ++i) {
      const std::size_t n = std::size_t{r.first} + i;
      if (!cipher.open(page_iv(p.manifest.version, static_cast<std::uint16_t>(r.region), i),
                       byte_view(p.pages).subspan(n * spec::page_bytes, spec::page_bytes),
                       byte_view(p.tags).subspan(n * spec::tag_bytes).first<spec::tag_bytes>(),
                       std::span(program.pages).subspan(n * spec::page_bytes, spec::page_bytes))) {
        throw error(errc::refused, what + ": page " + std::to_string(n) + " (page " +
                                       std::to_string(i) + " of region " +
                                       std::to_string(r.region) +
                                       ") or its tag was changed or is out of place");
      }
    }
  }
  program.descriptors = compiler::read_descriptors(
      byte_view(program.pages).first(std::size_t{p.manifest.desc_pages} * spec::page_bytes), what);
  if (program.descriptors.size() != p.manifest.num_descs)
    bad(what, "the number of descriptors is not the manifest's");
  compiler::check(program, what);
  return program;
}

void verify(const package& p, const key_encryption_key& kek, const std::string& what) {
  compiler::program program = unseal(p, kek, what);
  OPENSSL_cleanse(program.pages.data(), program.pages.size());
}

}  // namespace latchkey::lock
