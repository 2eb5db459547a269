// What the campaigns' pages are made of: tables in Markdown and HTML, plots as SVG, one style.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace latchkey::campaign {

/// Powers of ten for a person: 3.1e-07, or 0.
std::string small(double x);
/// 1,234,567
std::string grouped(std::uint64_t n);
/// 0.1234 -> "12.34 %"
std::string percent(double share, int digits = 2);
/// Text as it stands inside HTML.
std::string escaped(const std::string& text);

struct table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};
std::string markdown(const table& t);
std::string html(const table& t);

/// Head of a page that needs no other file, up to the opened body.
std::string html_begin(const std::string& title);
inline constexpr const char* html_end = "</body></html>\n";

/// The next of 1, 2, 4 and 8 times a power of ten: four steps of an axis are then round.
double rounded_up(double x);

/// A plot inside a figure. Styles are the classes of html_begin: a, b (bars), model, target, limit
/// (lines), seen (points).
class plot {
 public:
  plot(std::string title, std::string x_title, std::string y_title, double x0, double x1, double y0,
       double y1, bool log_y, int ticks_x = 5);
  void bar(double low, double high, double value, const char* style);
  void line(const std::vector<std::pair<double, double>>& points, const char* style);
  /// A point with the interval low..high.
  void point(double x, double y, double low, double high, const char* style);
  std::string done(const std::string& caption) const;

 private:
  double px(double x) const;
  double at(double v) const;
  double py(double y) const;
  std::string body_, title_;
  double x0_, x1_, y0_, y1_;
  bool log_;
};

}  // namespace latchkey::campaign
