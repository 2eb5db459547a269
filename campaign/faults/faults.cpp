#include "faults.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "compiler/compile.hpp"
#include "compiler/interpret.hpp"
#include "hardware.hpp"
#include "latchkey/error.hpp"
#include "latchkey/sim/fleet.h"
#include "lock/package.hpp"

namespace latchkey::campaign::faults {
namespace {

// Two dense layers, 64 - 64 - 64: every kind of page, and a result without padding.
model::qgraph small_network(std::mt19937_64& random) {
  model::qgraph g;
  g.name = "fault";
  const auto byte = [&](int lo, int hi) {
    return std::uniform_int_distribution<int>(lo, hi)(random);
  };
  float scale = 1.0F / 64;
  g.tensors.push_back({"t0", 64, 1, 1, scale, 128});
  for (int layer = 0; layer < 2; ++layer) {
    model::qconv n;
    n.fully_connected = true;
    n.out_channels = n.in_channels = 64;
    const float out_scale = scale * 0.01F * 43000 / 60;
    for (int i = 0; i < 64 * 64; ++i)
      n.weights.push_back(static_cast<std::int8_t>(byte(-127, 127)));
    for (int o = 0; o < 64; ++o) {
      n.weight_scale.push_back(0.01F);
      n.bias.push_back(byte(-20000, 20000));
      n.scale.push_back(model::make_requant(scale, 0.01F, out_scale));
    }
    scale = out_scale;
    g.tensors.push_back({"t" + std::to_string(layer + 1), 64, 1, 1, scale, 128});
    model::qnode node;
    node.name = "fc" + std::to_string(layer);
    node.inputs = {layer};
    node.output = layer + 1;
    node.op = std::move(n);
    g.nodes.push_back(std::move(node));
  }
  g.input = {"in", 0, model::io_type::f32, {64}};
  g.output = {"out", 2, model::io_type::f32, {64}};
  return g;
}

std::vector<std::uint32_t> words_of(std::span<const std::uint8_t> data) {
  std::vector<std::uint32_t> out(data.size() / 4);
  std::memcpy(out.data(), data.data(), 4 * out.size());
  return out;
}

/// What the host loads of a package.
void fill(session& s, const lock::package& package) {
  s.manifest = words_of(lock::to_bytes(package.manifest));
  s.blob = words_of(package.key);
  s.pages = package.pages;
  s.tags = package.tags;
  s.tags.resize((s.tags.size() + 255) / 256 * 256);
}

void hide(session& s, std::span<const std::uint8_t> key) {
  for (std::size_t i = 0; i + 4 <= key.size(); i += 4) {
    std::uint32_t w = 0;
    std::memcpy(&w, &key[i], 4);
    s.secret_words.insert(w);
  }
  for (std::size_t i = 0; i + 8 <= key.size(); ++i) {
    std::uint64_t w = 0;
    std::memcpy(&w, &key[i], 8);
    s.secret_windows.insert(w);
  }
}

}  // namespace

std::string name_of(attempt a) {
  switch (a) {
    case attempt::honest:
      return "an honest session";
    case attempt::other_die:
      return "another die";
    case attempt::helper:
      return "a changed bit of helper data";
    case attempt::manifest:
      return "a changed bit of the manifest";
    case attempt::wrapped_key:
      return "a changed bit of the wrapped key";
    case attempt::ticket:
      return "a package that needs a ticket, without one";
    case attempt::page:
      return "a changed bit of a weight page";
    case attempt::tag:
      return "a changed bit of a tag";
  }
  return {};
}

std::string name_of(outcome o) {
  switch (o) {
    case outcome::masked:
      return "masked";
    case outcome::refused:
      return "refused";
    case outcome::silent:
      return "silent";
    case outcome::violation:
      return "violation";
  }
  return {};
}

material make_sessions(std::uint64_t seed, std::uint64_t model) {
  std::mt19937_64 random(seed + (model << 32));
  sim::SiliconConfig config;
  config.die_seed = 1000 + seed;
  const hardware_enrolment chip = enrol_in_hardware(config, {}, 1);
  sim::FleetDie die(config, 1);
  const sim::Enrolled twin = sim::enrol(die);
  if (!chip.ok || differing_bits(chip.helper, helper_of(twin)) != 0) {
    throw error(errc::mismatch, fmt::format("die {}: not enrolled as its twin", config.die_seed));
  }
  std::array<std::uint8_t, lock::response_bytes> response{};
  for (unsigned j = 0; j < sim::key_bits; ++j) {
    const unsigned at = j % sim::bch_n;
    const auto bit = static_cast<unsigned>(twin.response[j / sim::bch_n][at / 64] >> (at % 64) & 1);
    response[j / 8] = static_cast<std::uint8_t>(response[j / 8] | bit << (j % 8));
  }
  const lock::secret<32> prk = lock::derive_root(twin.device_id, response);
  const lock::secret<32> mac = lock::derive_key(prk, "helper-mac", 0, 0);
  lock::device_record record;
  record.pub.id = twin.device_id;
  record.pub.helper.resize(lock::helper_bytes);
  std::memcpy(record.pub.helper.data(), chip.helper.data(), lock::helper_bytes);
  record.keys.push_back({0, 0, lock::derive_key(prk, "owner-root", 0, 0)});

  const compiler::program program =
      compiler::compile(small_network(random), {{16, 1024}, 1, {}, {}});
  const lock::package package = lock::seal(program, record, {});
  lock::model_key dek;
  std::array<std::uint8_t, 32> hash{};
  if (!lock::unwrap_model_key(record.keys[0].kek(), package.key, dek, hash)) {
    throw error(errc::mismatch, "the package just sealed does not open");
  }

  material m;
  session& s = m.honest;
  s.die_seed = config.die_seed;
  s.helper.assign(chip.helper.begin(), chip.helper.end());
  fill(s, package);
  s.images.resize(std::size_t{program.input.layout.words} * 64);
  for (auto& b : s.images) b = static_cast<std::uint8_t>(random());
  s.result = compiler::interpret(program, s.images, 1).output;
  hide(s, prk.view());
  hide(s, mac.view());
  hide(s, record.keys[0].root.view());
  hide(s, record.keys[0].kek().view());
  hide(s, dek.view());
  for (const auto& region : program.regions) {
    if (region.region == 0) continue;  // descriptors: shapes, no weights
    for (std::uint32_t p = region.first; p < region.first + region.count; ++p) {
      const auto page = program.page(p);
      for (std::size_t i = 0; i + 8 <= page.size(); ++i) {
        std::uint64_t w = 0;
        std::memcpy(&w, &page[i], 8);
        bool zero = false;
        for (std::size_t b = 0; b < 8; ++b) zero = zero || page[i + b] == 0;
        if (zero) continue;  // padding is no secret
        s.secret_windows.insert(w);
        s.secret_words.insert(static_cast<std::uint32_t>(w));
      }
    }
  }

  for (const attempt a : attempts) {
    session t = s;
    switch (a) {
      case attempt::honest:
        break;
      case attempt::other_die:
        t.die_seed += 1;
        break;
      case attempt::helper:
        t.helper[200 + random() % 63] ^= 1U << (random() % 32);
        break;
      case attempt::manifest:
        t.manifest[2] ^= 1U << (random() % 32);
        break;  // of model_id
      case attempt::wrapped_key:
        t.blob[random() % 14] ^= 1U << (random() % 32);
        break;
      case attempt::ticket: {
        lock::seal_options options;
        options.needs_ticket = true;
        const lock::package bound = lock::seal(program, record, options);
        lock::model_key key;
        if (!lock::unwrap_model_key(record.keys[0].kek(), bound.key, key, hash)) {
          throw error(errc::mismatch, "the package just sealed does not open");
        }
        fill(t, bound);
        hide(t, key.view());
        break;
      }
      // The last page: every other was verified and consumed before it fails.
      case attempt::page:
        t.pages[t.pages.size() - 1 - random() % 4096] ^=
            static_cast<std::uint8_t>(1U << (random() % 8));
        break;
      case attempt::tag:
        t.tags[16 * (package.num_pages() - 1) + random() % 16] ^=
            static_cast<std::uint8_t>(1U << (random() % 8));
        break;
    }
    m.sessions.emplace(a, std::move(t));
  }
  return m;
}

track walk(kernel& k, const session& s) {
  track t;
  std::vector<const point*> state;
  for (const point& p : k.points()) {
    if (p.state) state.push_back(&p);
  }
  k.begin(s);
  for (bool more = true; more;) {
    if (k.seen().cycle % spacing == 0) t.snapshots.push_back(k.take());
    t.begins.emplace(k.at(), k.seen().cycle);
    std::vector<std::uint16_t> now;
    now.reserve(state.size());
    for (const point* p : state) now.push_back(static_cast<std::uint16_t>(k.read(*p)));
    t.states.push_back(std::move(now));
    more = k.tick();
  }
  t.final = k.seen();
  return t;
}

outcome judge(attempt a, const session& s, const host& without, const host& with,
              std::string* why) {
  const auto violation = [&](const char* what) {
    if (why != nullptr) *why = what;
    return outcome::violation;
  };
  if (with.leaked) return violation("a secret on a port");
  std::vector<std::uint8_t> released;
  bool hidden = false;
  for (const beat& b : with.out) {
    if (b.keep)
      released.insert(released.end(), b.data.begin(), b.data.end());
    else
      hidden = hidden || b.data != std::array<std::uint8_t, 64>{};
  }
  if (hidden) return violation("data under a null beat");
  if (a != attempt::honest && !released.empty()) return violation("a result without verification");
  if (a == attempt::honest && !released.empty() && released != s.result) {
    return violation("a wrong result");
  }
  // KEY_STATE as the host saw it after UNWRAP.
  const bool loaded = with.states.size() == 2 &&
                      with.states[1] == static_cast<std::uint32_t>(spec::key_state::key_loaded);
  if (loaded && a != attempt::honest && a != attempt::page && a != attempt::tag) {
    return violation("a key without verification");
  }
  const auto said = [](const host& h) {
    return std::vector<std::uint32_t>(
        h.registers.begin(),
        h.registers.begin() + std::min<std::ptrdiff_t>(3, std::ssize(h.registers)));
  };
  if (with.states == without.states && said(with) == said(without) && with.out == without.out) {
    return outcome::masked;
  }
  return with.gave_up ? outcome::silent : outcome::refused;
}

namespace {

struct injection {
  attempt tried = attempt::honest;
  std::size_t point = 0;
  unsigned bit = 0;
  bool level = false;       // of a held signal
  std::uint64_t cycle = 0;  // of a flip, or from which on a signal is held
  outcome came = outcome::masked;
  std::string why;
};

void inject(kernel& k, const material& m, const std::map<attempt, track>& tracks, injection& i) {
  const session& s = m.sessions.at(i.tried);
  const track& t = tracks.at(i.tried);
  const point& p = k.points()[i.point];
  k.put(t.snapshots[i.cycle / spacing], s);
  try {
    while (k.seen().cycle < i.cycle) k.tick();
    if (p.state)
      k.flip(p, i.bit);
    else
      k.hold(p, i.bit, i.level);
    bool more = true;
    while (more) {
      more = k.tick();
      // Back on the track: the rest is known.
      if (p.state && k.seen().cycle % spacing == 0 &&
          k.seen().cycle / spacing < t.snapshots.size() &&
          k.is(t.snapshots[k.seen().cycle / spacing])) {
        i.came = outcome::masked;
        return;
      }
    }
  } catch (const std::runtime_error& e) {
    // The logic oscillates: no simulation can say what silicon would do.
    i.came = outcome::silent;
    i.why = e.what();
    k.release();
    return;
  }
  k.release();
  i.came = judge(i.tried, s, t.final, k.seen(), &i.why);
}

// Faults of one attempt. What a cheat changes plays no role before it is used, so its faults
// begin there; those of an honest session begin with START.
std::vector<injection> injections(const plan& p, attempt a, const kernel& k, const track& t,
                                  std::mt19937_64& random) {
  stage first = stage::start;
  if (a == attempt::manifest || a == attempt::wrapped_key || a == attempt::ticket) {
    first = stage::unwrap;
  }
  if (a == attempt::page || a == attempt::tag) first = stage::run;
  const std::uint64_t begin = t.begins.at(first), end = t.begins.at(stage::look);

  std::vector<injection> flips, holds;
  std::size_t column = 0;
  for (std::size_t n = 0; n < k.points().size(); ++n) {
    const point& at = k.points()[n];
    injection i;
    i.tried = a;
    i.point = n;
    if (at.state) {
      std::map<std::uint16_t, std::vector<std::uint64_t>> when;
      for (std::uint64_t c = begin; c < end; ++c) when[t.states[c][column]].push_back(c);
      ++column;
      for (const auto& [state, cycles] : when) {
        for (unsigned b = 0; b < at.bits; ++b) {
          for (unsigned time = 0; time < p.times; ++time) {
            i.bit = b;
            i.cycle = cycles[random() % cycles.size()];
            flips.push_back(i);
          }
        }
      }
    } else {
      for (unsigned b = 0; b < at.bits; ++b) {
        for (const bool level : {false, true}) {
          i.bit = b;
          i.level = level;
          i.cycle = begin;
          holds.push_back(i);
        }
      }
    }
  }
  const auto draw = [&](std::vector<injection>& from, std::size_t most) {
    if (most == 0 || from.size() <= most) return;
    std::shuffle(from.begin(), from.end(), random);
    from.resize(most);
  };
  draw(flips, p.flips);
  draw(holds, p.holds);
  flips.insert(flips.end(), holds.begin(), holds.end());
  return flips;
}

std::string room_of(const std::string& module) {
  if (module.find("u_key") != std::string::npos) {
    return module.find("u_puf") != std::string::npos ? "puf" : "key";
  }
  if (module.find("u_chain") != std::string::npos) return "lock";
  return "control";
}

}  // namespace

nlohmann::json run(const plan& p, const std::function<void(const std::string&)>& say) {
  if (p.threads == 0 || p.times == 0) throw error(errc::usage, "a fault campaign of nothing");
  const auto began = std::chrono::steady_clock::now();
  std::mt19937_64 random(p.seed);
  const material m = make_sessions(p.seed);
  std::map<attempt, track> tracks;
  std::vector<injection> all;
  kernel first;
  nlohmann::json sessions = nlohmann::json::array();
  for (const attempt a : attempts) {
    const session& s = m.sessions.at(a);
    const track t = walk(first, s);
    std::string why;
    const bool released =
        std::any_of(t.final.out.begin(), t.final.out.end(), [](const beat& b) { return b.keep; });
    if (judge(a, s, t.final, t.final, &why) != outcome::masked ||
        released != (a == attempt::honest) || t.final.gave_up || t.final.strayed) {
      throw error(errc::mismatch, fmt::format("without a fault, {} does not end as it must: {}",
                                              name_of(a), why.empty() ? "no answer" : why));
    }
    sessions.push_back({{"attempt", name_of(a)},
                        {"cycles", t.final.cycle},
                        {"key_err", t.final.registers.at(1)},
                        {"run_status", t.final.registers.at(2)}});
    const auto more = injections(p, a, first, t, random);
    all.insert(all.end(), more.begin(), more.end());
    tracks.emplace(a, t);
  }
  say(fmt::format("{} points, {} injections in {} sessions", first.points().size(), all.size(),
                  std::size(attempts)));

  // Neighbours share a snapshot and a die.
  std::sort(all.begin(), all.end(), [](const injection& x, const injection& y) {
    return std::tie(x.tried, x.cycle, x.point, x.bit) < std::tie(y.tried, y.cycle, y.point, y.bit);
  });
  std::atomic<std::size_t> taken{0};
  std::exception_ptr failed;
  std::mutex lock;
  const auto work = [&](kernel& k) {
    try {
      constexpr std::size_t batch = 8;
      for (std::size_t from; (from = taken.fetch_add(batch)) < all.size();) {
        for (std::size_t n = from; n < std::min(from + batch, all.size()); ++n) {
          inject(k, m, tracks, all[n]);
        }
        if (from / 256 != (from + batch) / 256) {
          const std::lock_guard guard(lock);
          say(fmt::format("{} of {} injections", from + batch, all.size()));
        }
      }
    } catch (...) {
      const std::lock_guard guard(lock);
      failed = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (unsigned n = 1; n < p.threads; ++n) {
      others.emplace_back([&] {
        kernel mine;
        work(mine);
      });
    }
    work(first);
  }
  if (failed) std::rethrow_exception(failed);

  // ---- by module and point
  nlohmann::json points = nlohmann::json::array(), violations = nlohmann::json::array();
  std::map<std::size_t, std::vector<const injection*>> of;
  for (const injection& i : all) of[i.point].push_back(&i);
  const auto counted = [](const std::vector<const injection*>& from) {
    nlohmann::json c = {{"masked", 0}, {"refused", 0}, {"silent", 0}, {"violation", 0}};
    for (const injection* i : from) c[name_of(i->came)] = c[name_of(i->came)].get<int>() + 1;
    return c;
  };
  std::map<std::string, nlohmann::json> rooms;
  for (std::size_t n = 0; n < first.points().size(); ++n) {
    const point& at = first.points()[n];
    std::set<unsigned> bits;
    for (const injection* i : of[n]) bits.insert(i->bit);
    nlohmann::json one = {{"module", at.module},
                          {"name", at.name},
                          {"kind", at.state ? "flipped" : "held"},
                          {"bits", at.bits},
                          {"bits_injected", bits.size()},
                          {"injections", of[n].size()},
                          {"outcomes", counted(of[n])}};
    auto& room = rooms[room_of(at.module)];
    const char* kind = at.state ? "flipped" : "held";
    if (!room.contains(kind)) {
      room[kind] = {
          {"bits", 0}, {"bits_injected", 0}, {"injections", 0}, {"outcomes", counted({})}};
    }
    for (const char* field : {"bits", "bits_injected", "injections"}) {
      room[kind][field] = room[kind][field].get<std::size_t>() + one[field].get<std::size_t>();
    }
    for (const auto& [came, count] : one["outcomes"].items()) {
      room[kind]["outcomes"][came] =
          room[kind]["outcomes"][came].get<std::size_t>() + count.get<std::size_t>();
    }
    points.push_back(std::move(one));
  }
  for (const injection& i : all) {
    if (i.came != outcome::violation) continue;
    const point& at = first.points()[i.point];
    violations.push_back({{"attempt", name_of(i.tried)},
                          {"module", at.module},
                          {"name", at.name},
                          {"bit", i.bit},
                          {"fault", at.state ? "flipped" : (i.level ? "held at 1" : "held at 0")},
                          {"cycle", i.cycle},
                          {"what", i.why}});
  }
  std::vector<const injection*> everything;
  for (const injection& i : all) everything.push_back(&i);
  return {
      {"schema", 1},
      {"what", "single faults in a simulated kernel, array 16 x 16, not silicon"},
      {"seed", p.seed},
      {"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count()},
      {"sessions", sessions},
      {"injections", all.size()},
      {"outcomes", counted(everything)},
      {"rooms", rooms},
      {"points", points},
      {"violations", violations},
  };
}

}  // namespace latchkey::campaign::faults
