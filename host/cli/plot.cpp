#include "plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "console.hpp"
#include "latchkey_spec.hpp"

namespace latchkey::cli {
namespace {

using compiler::bound;

constexpr double width = 1080, margin = 64;
constexpr double roof_top = 108, roof_height = 330;
constexpr double row_height = 26, name_width = 170;

std::string escaped(const std::string& text) {
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
        // XML has no place for control characters.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

const char* colour(bound b) {
  switch (b) {
    case bound::array:
      return "#2f6f9f";
    case bound::feed:
      return "#7a5aa6";
    case bound::port:
      return "#d1793b";
    case bound::memory:
      return "#b5443c";
    case bound::post:
      return "#3d8f6d";
    case bound::vector:
      return "#8a8f3a";
    case bound::stream:
      return "#5f87a8";
    case bound::overhead:
      return "#8b8f94";
  }
  return "#000";
}

std::string text(double x, double y, const std::string& what, const char* anchor = "start",
                 const char* style = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", x, y,
                     anchor, style, escaped(what));
}

std::string line(double x1, double y1, double x2, double y2, const char* style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1,
                     x2, y2, style);
}

constexpr const char* grid = "stroke=\"#dfe3e8\"";
constexpr const char* soft = "fill=\"#6b7280\"";

double cycles_of(const plotted_layer& l) {
  return static_cast<double>(l.measured.value_or(l.cost.cycles));
}

/// MACs a cycle over MACs a byte of weights, both logarithmic to base 2.
std::string roofline(const plotted_run& run) {
  struct point {
    double intensity, rate;
    const plotted_layer* layer;
  };
  const double peak = double{1} * run.array_n * run.array_n;
  const double slope = spec::beat_bytes * run.beats_per_cycle;  // bytes a cycle
  std::vector<point> points;
  double low_x = std::log2(peak / slope) - 2, high_x = low_x + 4, low_y = std::log2(peak) - 2;
  for (const plotted_layer& l : run.layers) {
    if (l.cost.macs == 0 || l.cost.bytes == 0 || cycles_of(l) == 0) continue;
    const point p{std::log2(static_cast<double>(l.cost.macs) / static_cast<double>(l.cost.bytes)),
                  std::log2(static_cast<double>(l.cost.macs) / cycles_of(l)), &l};
    points.push_back(p);
    low_x = std::min(low_x, p.intensity);
    high_x = std::max(high_x, p.intensity);
    low_y = std::min(low_y, p.rate);
  }
  low_x = std::floor(low_x - 0.5);
  high_x = std::ceil(high_x + 1.5);
  low_y = std::floor(low_y - 0.5);
  const double high_y = std::log2(peak) + 1;
  const double left = margin + 10, right = width - margin, bottom = roof_top + roof_height;
  const auto x = [&](double v) { return left + (v - low_x) / (high_x - low_x) * (right - left); };
  const auto y = [&](double v) {
    return bottom - (v - low_y) / (high_y - low_y) * (bottom - roof_top);
  };

  std::string s = text(margin, roof_top - 14, "Roofline", "start", "class=\"h\"");
  for (double v = low_x; v <= high_x; ++v) {
    s += line(x(v), roof_top, x(v), bottom, grid);
    s += text(x(v), bottom + 16, fmt::format("{:g}", std::exp2(v)), "middle", soft);
  }
  for (double v = low_y; v <= high_y; ++v) {
    s += line(left, y(v), right, y(v), grid);
    s += text(left - 6, y(v) + 4, fmt::format("{:g}", std::exp2(v)), "end", soft);
  }
  s += text((left + right) / 2, bottom + 34, "MACs per byte of weights fetched", "middle", soft);
  s += fmt::format(
      "<text transform=\"translate({:.1f},{:.1f}) rotate(-90)\" text-anchor=\"middle\" {}>MACs per "
      "cycle</text>\n",
      left - 46, (roof_top + bottom) / 2, soft);

  const double ridge = std::clamp(std::log2(peak / slope), low_x, high_x);
  const double start = std::max(low_x, low_y - std::log2(slope));
  constexpr const char* roof = "stroke=\"#111827\" stroke-width=\"2\"";
  s += line(x(start), y(start + std::log2(slope)), x(ridge), y(std::log2(peak)), roof);
  s += line(x(ridge), y(std::log2(peak)), x(high_x), y(std::log2(peak)), roof);
  s += text(x(high_x) - 4, y(std::log2(peak)) - 7,
            fmt::format("{0} x {0} array: {1:g} MACs a cycle", run.array_n, peak), "end");
  for (const point& p : points) {
    s += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"6\" fill=\"{}\" fill-opacity=\"0.85\" "
        "stroke=\"#fff\"><title>{}: {} MACs, {}, {:.1f} MACs a cycle, bound by {}</title>"
        "</circle>\n",
        x(p.intensity), y(p.rate), colour(p.layer->cost.by), escaped(p.layer->name),
        grouped(p.layer->cost.macs), bytes_text(p.layer->cost.bytes), std::exp2(p.rate),
        describe(p.layer->cost.by));
    // Beyond a dozen names nobody reads them; the points keep their titles.
    if (points.size() <= 12)
      s += text(x(p.intensity) + 8, y(p.rate) + 15, p.layer->name, "start", "class=\"n\"");
  }
  return s;
}

/// A row per layer: predicted bar in the bound's colour, measured bar below, in the run's time.
std::string timeline(const plotted_run& run, double top, double& bottom) {
  double predicted = 0, measured = 0;
  for (const plotted_layer& l : run.layers) {
    predicted += static_cast<double>(l.cost.cycles);
    measured += static_cast<double>(l.measured.value_or(0));
  }
  const double total = std::max({predicted, measured, 1.0});
  const double left = margin + name_width, right = width - margin - 110;
  const auto x = [&](double cycle) { return left + cycle / total * (right - left); };
  bottom = top + row_height * static_cast<double>(run.layers.size()) + 8;

  std::string s = text(margin, top - 14, "Timeline", "start", "class=\"h\"");
  double step = std::pow(10.0, std::floor(std::log10(total)));
  if (total / step < 3) step /= 5;
  for (double v = 0; v <= total; v += step) {
    s += line(x(v), top, x(v), bottom, grid);
    s += text(x(v), bottom + 16, grouped(static_cast<std::uint64_t>(v)), "middle", soft);
  }
  s += text((left + right) / 2, bottom + 34, "cycles of one start", "middle", soft);
  double at = 0, at_measured = 0, y = top + 4;
  for (const plotted_layer& l : run.layers) {
    const double cycles = static_cast<double>(l.cost.cycles);
    const bool both = l.measured.has_value();
    const double height = both ? row_height / 2 - 3 : row_height - 8;
    s += text(left - 8, y + row_height / 2, l.name.substr(0, 24), "end", "class=\"n\"");
    s += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"2\" fill=\"{}\">"
        "<title>{} ({}): {} cycles predicted, bound by {}</title></rect>\n",
        x(at), y, std::max(1.0, x(at + cycles) - x(at)), height, colour(l.cost.by), escaped(l.name),
        l.op, grouped(l.cost.cycles), describe(l.cost.by));
    if (both) {
      const double m = static_cast<double>(*l.measured);
      s += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"2\" "
          "fill=\"#111827\"><title>{}: {} cycles measured</title></rect>\n",
          x(at_measured), y + height + 1, std::max(1.0, x(at_measured + m) - x(at_measured)),
          height - 2, escaped(l.name), grouped(*l.measured));
      at_measured += m;
    }
    s += text(right + 8, y + row_height / 2,
              fmt::format("{} ({:.1f} %)", grouped(static_cast<std::uint64_t>(cycles_of(l))),
                          100 * cycles_of(l) / (both ? std::max(measured, 1.0) : total)),
              "start", soft);
    at += cycles;
    y += row_height;
  }
  bottom += 44;
  return s;
}

std::string legend(const plotted_run& run, double y) {
  std::string s = text(margin, y + 10, "bound by", "start", soft);
  double x = margin + 66;
  for (const bound b : {bound::array, bound::feed, bound::port, bound::memory, bound::post,
                        bound::vector, bound::stream, bound::overhead}) {
    const auto has = [&](const plotted_layer& l) { return l.cost.by == b; };
    if (std::none_of(run.layers.begin(), run.layers.end(), has)) continue;
    s += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>\n", x, y,
        colour(b));
    s += text(x + 17, y + 10, std::string(describe(b)));
    x += 36 + 7.2 * static_cast<double>(describe(b).size());
  }
  const auto measured = [](const plotted_layer& l) { return l.measured.has_value(); };
  if (std::any_of(run.layers.begin(), run.layers.end(), measured)) {
    s += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"#111827\"/>\n",
        x, y);
    s += text(x + 17, y + 10, "measured");
  }
  return s;
}

}  // namespace

std::string svg(const plotted_run& run) {
  double bottom = 0;
  const double second = roof_top + roof_height + 92;
  const std::string time = timeline(run, second, bottom);
  const std::string body = roofline(run) + time + legend(run, bottom + 4);
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" "
      "fill=\"#111827\">\n"
      "<style>.t{{font-size:20px;font-weight:600}}.h{{font-size:15px;font-weight:600}}"
      ".n{{font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:3px}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{2}{3}{4}</svg>\n",
      width, bottom + 36, text(margin, 38, run.title, "start", "class=\"t\""),
      text(margin, 60, run.subtitle, "start", soft), body);
}

std::string html(const plotted_run& run) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head>\n"
      "<body style=\"margin:0\">\n{}</body></html>\n",
      escaped(run.title), svg(run));
}

}  // namespace latchkey::cli
