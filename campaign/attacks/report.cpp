#include "report.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "document.hpp"

namespace latchkey::campaign::attacks {
namespace {

using nlohmann::json;

double number(const json& j) { return j.get<double>(); }
std::uint64_t count(const json& j) { return j.get<std::uint64_t>(); }

table raw(const json& r) {
  table t{{"attack", "target", "challenges", "readings of each", "accuracy", "seconds"}, {}};
  for (const json& c : r["raw_access"]) {
    std::string name = c["attack"];
    if (c.contains("chains_found")) {
      name += fmt::format(" (chains found: {})", c["chains_found"].get<unsigned>());
    }
    t.rows.push_back({name, c["target"], grouped(count(c["crps"])), grouped(count(c["readings"])),
                      percent(number(c["accuracy"]), 1),
                      fmt::format("{:.1f}", number(c["seconds"]))});
  }
  return t;
}

table lots(const json& r) {
  table t{{"lot's common skew", "dice opened", "kept bits guessed", "95 % interval",
           "min-entropy a kept bit", "bits left after the code"},
          {}};
  for (const json& c : r["helper_data"]["other_dice_of_the_lot"]) {
    const json& k = c["kept_bits"];
    t.rows.push_back({fmt::format("{} sigma", number(c["skew"])), grouped(count(c["opened"])),
                      percent(number(k["share"])),
                      percent(number(k["low"])) + " .. " + percent(number(k["high"])),
                      fmt::format("{:.3f}", number(c["min_entropy_a_kept_bit"])),
                      fmt::format("{:.0f}", number(c["bits_left"]))});
  }
  return t;
}

table changes(const json& r) {
  table t{{"change of helper data", "tried", "refused", "KEY_ERR seen",
           "same reason and cycles on another die"},
          {}};
  for (const json& c : r["manipulation"]["classes"]) {
    t.rows.push_back({c["change"], grouped(count(c["tried"])), grouped(count(c["refused"])),
                      c["reasons"].dump(), grouped(count(c["as_another_die"]))});
  }
  return t;
}

std::string mask_sentence(const json& r) {
  const json& m = r["helper_data"]["mask_reliability"];
  return fmt::format(
      "On {} dice the ascent was run on the mask of each chain's 64 challenges; it fits the mask "
      "(correlation {:.2f} in the\nmean) and predicts {} of the kept bits, 95 % interval {} to {}. "
      "Given each chain's sign by an oracle it gets {}; a coin with\nthe same gift gets {} "
      "({:+.1f} "
      "standard deviations).",
      count(m["dice"]), number(m["correlation_reached"]), percent(number(m["kept_bits"]["share"])),
      percent(number(m["kept_bits"]["low"])), percent(number(m["kept_bits"]["high"])),
      percent(number(m["sign_of_each_chain_given"])),
      percent(number(m["a_coin_with_the_same_gift"])), number(m["deviations"]));
}

std::string differential_sentence(const json& r) {
  const json& d = r["manipulation"]["differential"];
  return fmt::format(
      "The exchange is the differential attack on helper data: without a tag the decoder's verdict "
      "tells in {} of {} cases whether\ntwo response bits are equal. The RTL refuses every one "
      "alike, and the best guess from that is right in {}, by always saying the\nlikelier.",
      count(d["learned_without_the_tag"]), count(d["tried"]), count(d["learned_from_the_rtl"]));
}

}  // namespace

std::string summary(const json& r) {
  std::string s = fmt::format("Modelled dice, not silicon. Seed {}, {:.0f} s.\n", count(r["seed"]),
                              number(r["seconds"]));
  for (const auto& row : raw(r).rows) {
    s += fmt::format("{:<44}{:<18}{:>9} challenges x {:>2}: {:>7}\n", row[0], row[1], row[2],
                     row[3], row[4]);
  }
  for (const auto& row : lots(r).rows) {
    s += fmt::format("helper data, lot of {:<10}: {} of kept bits guessed, {} bits left\n", row[0],
                     row[2], row[5]);
  }
  s += mask_sentence(r) + "\n";
  for (const auto& row : changes(r).rows) {
    s += fmt::format("{}: {} of {} refused, KEY_ERR {}\n", row[0], row[2], row[1], row[3]);
  }
  return s + differential_sentence(r) + "\n";
}

std::string markdown_page(const json& r) {
  std::string s = fmt::format(
      "# Attacks on the PUF\n\nWritten by `{}` ({:.0f} s; figures in "
      "[reports/attacks.json](reports/attacks.json), plot in\n"
      "[reports/attacks.html](reports/attacks.html)). Not edited by hand. **Modelled dice and a "
      "simulated key block**: the figures\nsay what learners make of the model, nothing of a real "
      "part.\n\n## With raw access\n\nWhat no build offers: an attacker who chooses challenges and "
      "reads answers. The compositions exist for this study only\n(`sim/silicon`). Noise 5 % a "
      "race in training; accuracy on 10,000 fresh challenges without noise.\n\n",
      r["command"].get<std::string>(), number(r["seconds"]));
  s += markdown(raw(r));
  s += "So a chain is an open book to whoever may ask it freely, and composing chains buys a "
       "factor, "
       "not security. Hence 64 fixed\nchallenges, whose answers are uncorrelated, and no port.\n\n"
       "The reliability attack climbs the gradient of the correlation (Tobisch, Aghaie, Becker "
       "2021) "
       "where Becker 2015 uses CMA-ES. An interpose PUF falls to the\nsplitting attack (Wisiol et "
       "al. "
       "2020), which is not in this suite; what a plain perceptron makes of it is above.\n\n"
       "## With helper data only\n\n";
  s += "**The mask** tells which differences are large, the one bit of reliability that is "
       "public. " +
       mask_sentence(r) + "\nThe 64 challenges are orthogonal: any signs fit any sizes.\n\n";
  s += "**Other dice of the lot**, opened and read in their first life-cycle state, give each "
       "place's "
       "majority. The rest is the budget of\n[puf.md](puf.md): min-entropy of a kept bit given its "
       "place (closed form of the model), 2,040 bits, less the 992 that the code gives\naway.\n\n";
  s += markdown(lots(r));
  s +=
      "## With changed helper data\n\nEach change is given to the RTL's START on the enrolled die, "
      "and on another die, whose responses are\nothers: reason and time must "
      "not tell the two apart.\n\n";
  s += markdown(changes(r));
  return s + differential_sentence(r) + "\n";
}

std::string html_page(const json& r) {
  std::string s = html_begin("Attacks on the PUF: modelled dice") + "<h1>Attacks on the PUF</h1>\n";
  s += fmt::format(
      "<p>Seed {}, <code>{}</code>, {:.0f} s.</p>\n<p class=\"model\">Modelled dice and "
      "a simulated key block; no figure of silicon.</p>\n<h2>With raw access</h2>\n",
      count(r["seed"]), escaped(r["command"].get<std::string>()), number(r["seconds"]));
  plot p("Accuracy with raw access", "log10 of challenges", "accuracy", 1.5, 5.5, 0.4, 1, false, 4);
  std::map<std::string, std::vector<std::pair<double, double>>> lines;
  for (const json& c : r["raw_access"]) {
    lines[c["attack"].get<std::string>() + c["target"].get<std::string>()].emplace_back(
        std::log10(number(c["crps"])), number(c["accuracy"]));
  }
  for (const auto& [name, line] : lines) {
    p.line(line, "model");
    for (const auto& [x, y] : line) p.point(x, y, y, y, "seen");
  }
  p.line({{1.5, 0.5}, {5.5, 0.5}}, "target");
  s += p.done("A line for each attack and target of the table. Red: a coin.");
  s += html(raw(r)) + "<h2>With helper data only</h2>\n<p>" + escaped(mask_sentence(r)) + "</p>\n" +
       html(lots(r));
  s += "<h2>With changed helper data</h2>\n" + html(changes(r)) + "<p>" +
       escaped(differential_sentence(r)) + "</p>\n";
  return s + html_end;
}

}  // namespace latchkey::campaign::attacks
