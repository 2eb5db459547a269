#include "document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace latchkey::campaign {

std::string small(double x) {
  if (x == 0) return "0";
  if (x < 1e-300) return "< 1e-300";
  return fmt::format("{:.1e}", x);
}

std::string grouped(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string percent(double share, int digits) {
  return fmt::format("{:.{}f} %", 100 * share, digits);
}

std::string markdown(const table& t) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string s = "|";
    for (const std::string& c : cells) s += " " + c + " |";
    return s + "\n";
  };
  std::string s = line(t.head) + "|";
  for (std::size_t i = 0; i < t.head.size(); ++i) s += "---|";
  s += "\n";
  for (const auto& row : t.rows) s += line(row);
  return s + "\n";
}

std::string escaped(const std::string& text) {
  std::string s;
  for (char c : text) {
    if (c == '<')
      s += "&lt;";
    else if (c == '>')
      s += "&gt;";
    else if (c == '&')
      s += "&amp;";
    else
      s += c;
  }
  return s;
}

std::string html(const table& t) {
  std::string s = "<table><tr>";
  for (const std::string& c : t.head) s += "<th>" + escaped(c) + "</th>";
  s += "</tr>\n";
  for (const auto& row : t.rows) {
    s += "<tr>";
    for (const std::string& c : row) s += "<td>" + escaped(c) + "</td>";
    s += "</tr>\n";
  }
  return s + "</table>\n";
}

std::string html_begin(const std::string& title) {
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" +
         escaped(title) +
         "</title>\n<style>body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2em "
         "auto;padding:0 "
         "1em;color:#1b1f24}h1{margin-bottom:0}p.model{background:#fff3cd;border:1px "
         "solid "
         "#e0c868;padding:.7em 1em}table{border-collapse:collapse;margin:1em "
         "0}td,th{border:1px solid #d0d7de;padding:.25em "
         ".6em;text-align:right;font-variant-numeric:"
         "tabular-nums}td:first-child,th:first-child{text-align:left}figure{display:inline-block;"
         "width:"
         "560px;max-width:100%;margin:.5em "
         "0;vertical-align:top}figcaption{font-size:13px;padding:0 "
         "1em}svg{width:100%}.frame{fill:none;stroke:#8c959f}.grid{stroke:#e6e9ec}.tx{font-size:"
         "11px;"
         "text-anchor:middle}.ty{font-size:11px;text-anchor:end}.a{fill:#6b8fb5}.b{fill:#c77b4a}."
         "model{"
         "fill:none;stroke:#1f5fa8;stroke-width:1.5}.target{fill:none;stroke:#c0392b;stroke-"
         "dasharray:"
         "5 3}.limit{fill:none;stroke:#777}.seen{stroke:#111;fill:#111}</style></head><body>\n";
}

double rounded_up(double x) {
  const double power = std::pow(10, std::floor(std::log10(x)));
  for (double step : {1, 2, 4, 8})
    if (x <= step * power) return step * power;
  return 10 * power;
}

namespace {
constexpr double plot_width = 560, plot_height = 300, left = 64, right = 16, top = 16, bottom = 44;
}  // namespace

plot::plot(std::string title, std::string x_title, std::string y_title, double x0, double x1,
           double y0, double y1, bool log_y, int ticks_x)
    : x0_(x0),
      x1_(x1),
      y0_(log_y ? std::log10(y0) : y0),
      y1_(log_y ? std::log10(y1) : y1),
      log_(log_y) {
  body_ = fmt::format(
      "<figure><svg viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"{2}\"><title>{2}</title>"
      "<rect x=\"{3}\" y=\"{4}\" width=\"{5}\" height=\"{6}\" class=\"frame\"/>\n",
      plot_width, plot_height, escaped(title), left, top, plot_width - left - right,
      plot_height - top - bottom);
  for (int i = 0; i <= ticks_x; ++i) {
    const double x = x0 + (x1 - x0) * i / ticks_x;
    body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"tx\">{:.4g}</text>\n", px(x),
                         plot_height - bottom + 16, x);
  }
  const int ticks = log_ ? static_cast<int>(std::round(y1_ - y0_)) : 4;
  const int step = log_ ? std::max(1, ticks / 6) : 1;
  for (int i = 0; i <= ticks; i += step) {
    const double v = log_ ? y0_ + i : y0_ + (y1_ - y0_) * i / ticks;
    const double y = at(v);
    body_ += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" class=\"ty\">{}</text>\n",
        left, plot_width - right, y, y, left - 6, y + 4,
        log_ ? fmt::format("1e{:.0f}", v) : fmt::format("{:.4g}", v));
  }
  body_ += fmt::format("<text x=\"{}\" y=\"{}\" class=\"tx\">{}</text>\n",
                       (left + plot_width - right) / 2, plot_height - 8, escaped(x_title));
  body_ += fmt::format("<text transform=\"translate(14,{}) rotate(-90)\" class=\"tx\">{}</text>\n",
                       (top + plot_height - bottom) / 2, escaped(y_title));
  title_ = std::move(title);
}

void plot::bar(double low, double high, double value, const char* style) {
  if (value <= 0) return;
  const double y = py(value);
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"/>\n",
      px(low), y, std::max(0.5, px(high) - px(low) - 0.5), plot_height - bottom - y, style);
}
void plot::line(const std::vector<std::pair<double, double>>& points, const char* style) {
  std::string s;
  for (auto [x, y] : points)
    if (!log_ || y > 0) s += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
  body_ += fmt::format("<polyline points=\"{}\" class=\"{}\"/>\n", s, style);
}
void plot::point(double x, double y, double low, double high, const char* style) {
  body_ += fmt::format(
      "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" class=\"{3}\"/>\n", px(x),
      py(high), py(low), style);
  if (!log_ || y > 0)
    body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" class=\"{}\"/>\n", px(x),
                         py(y), style);
}
std::string plot::done(const std::string& caption) const {
  return body_ + "</svg><figcaption><b>" + escaped(title_) + ".</b> " + escaped(caption) +
         "</figcaption></figure>\n";
}

double plot::px(double x) const {
  return left + (std::clamp(x, x0_, x1_) - x0_) / (x1_ - x0_) * (plot_width - left - right);
}
double plot::at(double v) const {
  return plot_height - bottom -
         (std::clamp(v, y0_, y1_) - y0_) / (y1_ - y0_) * (plot_height - top - bottom);
}
double plot::py(double y) const { return at(log_ ? (y > 0 ? std::log10(y) : y0_) : y); }

}  // namespace latchkey::campaign
