#include "cli/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/svg.h"

namespace rung::cli {
namespace {

constexpr double kWidth = 640, kHeight = 300, kLeft = 62, kRight = 616, kTop = 14, kBottom = 256;
constexpr size_t kColors = 6;
// More than one a pixel cannot be seen.
constexpr size_t kPoints = 560;
// Share of raw values that may lie outside of the drawing at each end.
constexpr double kOutside = 0.01;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void Add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

// Of raw values without their few extremes.
void AddRaw(const std::vector<double>& y, Range* range) {
  std::vector<double> sorted;
  std::copy_if(y.begin(), y.end(), std::back_inserter(sorted), [](double v) { return std::isfinite(v); });
  if (sorted.empty()) return;
  std::sort(sorted.begin(), sorted.end());
  const auto cut = static_cast<size_t>(kOutside * static_cast<double>(sorted.size()));
  range->Add(sorted[cut]);
  range->Add(sorted[sorted.size() - 1 - cut]);
}

struct Scale {
  std::vector<double> x_ticks, y_ticks;
  double x_low = 0, x_high = 1;
  double x(double value) const { return kLeft + (value - x_low) / (x_high - x_low) * (kRight - kLeft); }
  double y(double value) const {
    return kBottom - (value - y_ticks.front()) / (y_ticks.back() - y_ticks.front()) * (kBottom - kTop);
  }
};

// Digits enough to tell a tick from the next.
std::string TickText(double value, double step) {
  if (value == 0.0) return "0";
  const double size = std::max(std::abs(value), step);
  if (size < 1e-3) {
    // 1e-4 rather than 0.0001; the power is that of the value.
    const double power = std::floor(std::log10(std::abs(value)) + 1e-9);
    return fmt::format("{:.3g}e{:.0f}", value / std::pow(10.0, power), power);
  }
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 8);
  return fmt::format("{:.{}f}", value, decimals);
}

Scale ScaleOf(const LineChart& chart, const std::vector<ChartLine>& thinned) {
  Range x, y;
  for (size_t i = 0; i < thinned.size(); ++i) {
    for (const double value : chart.lines[i].x) x.Add(value);
    if (thinned[i].kind == ChartLine::Kind::kFaint) {
      AddRaw(chart.lines[i].y, &y);
    } else {
      for (const double value : thinned[i].y) y.Add(value);
    }
  }
  if (chart.from_zero) y.Add(0.0);
  Scale scale;
  scale.x_low = std::min(0.0, x.low);
  scale.x_high = std::max(x.high, scale.x_low + 1.0);
  for (const double tick : Ticks(scale.x_low, scale.x_high)) {
    if (tick <= scale.x_high * 1.000001) scale.x_ticks.push_back(tick);
  }
  scale.y_ticks = Ticks(y.low, y.high);
  return scale;
}

void DrawAxes(const LineChart& chart, const Scale& scale, std::string* svg) {
  const double y_step = scale.y_ticks[1] - scale.y_ticks[0];
  for (const double tick : scale.y_ticks) {
    const double y = scale.y(tick);
    *svg += fmt::format("<line class=\"grid\" x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\"/>", kLeft, y,
                        kRight, y);
    *svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, y + 4,
                        TickText(tick, y_step));
  }
  const double x_step = scale.x_ticks.size() > 1 ? scale.x_ticks[1] - scale.x_ticks[0] : 1.0;
  for (const double tick : scale.x_ticks) {
    const double x = scale.x(tick);
    *svg += fmt::format("<line class=\"axis\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\"/>", x,
                        kBottom, kBottom + 4);
    *svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x, kBottom + 18,
                        TickText(tick, x_step));
  }
  *svg += fmt::format("<line class=\"axis\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", kLeft, kBottom,
                      kRight, kBottom);
  *svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kRight, kBottom + 36,
                      EscapeXml(chart.x_name));
}

void DrawLine(const ChartLine& line, const Scale& scale, std::string* svg) {
  const size_t color = line.color % kColors;
  if (line.kind == ChartLine::Kind::kPoints || line.x.size() == 1) {
    for (size_t i = 0; i < line.x.size(); ++i) {
      *svg += fmt::format("<circle class=\"point c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", color,
                          scale.x(line.x[i]), scale.y(line.y[i]));
    }
  }
  const char* kind = line.kind == ChartLine::Kind::kFaint    ? "faint"
                     : line.kind == ChartLine::Kind::kPoints ? "dashed"
                                                             : "line";
  *svg += fmt::format("<polyline class=\"{} c{}\" points=\"", kind, color);
  for (size_t i = 0; i < line.x.size(); ++i)
    *svg += fmt::format("{:.1f},{:.1f} ", scale.x(line.x[i]), scale.y(line.y[i]));
  *svg += "\"/>\n";
}

std::string DataOf(const LineChart& chart, const std::vector<ChartLine>& lines, const Scale& scale) {
  // Six digits are more than a tooltip shows.
  const auto rounded = [](const std::vector<double>& values) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const double v : values) list.push_back(std::stod(fmt::format("{:.6g}", v)));
    return list;
  };
  nlohmann::ordered_json data = {{"box", {kLeft, kTop, kRight, kBottom}},
                                 {"x", {scale.x_low, scale.x_high}},
                                 {"y", {scale.y_ticks.front(), scale.y_ticks.back()}},
                                 {"xName", chart.x_name},
                                 {"lines", nlohmann::ordered_json::array()}};
  for (const ChartLine& line : lines) {
    data["lines"].push_back({{"name", line.name},
                             {"color", line.color % kColors},
                             {"x", rounded(line.x)},
                             {"y", rounded(line.y)}});
  }
  return data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

std::vector<double> Ticks(double low, double high) {
  if (!(high > low)) {
    const double pad = low == 0.0 ? 1.0 : 0.1 * std::abs(low);
    low -= pad;
    high += pad;
  }
  const double rough = (high - low) / 5.0, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10.0 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * 0.999) step = factor * power;
  }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

ChartLine Thinned(const ChartLine& line, size_t most) {
  ChartLine thin = line;
  thin.x.clear();
  thin.y.clear();
  const auto keep = [&](size_t i) {
    thin.x.push_back(line.x[i]);
    thin.y.push_back(line.y[i]);
  };
  std::vector<size_t> finite;
  for (size_t i = 0; i < line.y.size(); ++i) {
    if (std::isfinite(line.y[i])) finite.push_back(i);
  }
  if (finite.size() <= most) {
    for (const size_t i : finite) keep(i);
    return thin;
  }
  const size_t stretches = most / 2;
  for (size_t s = 0; s < stretches; ++s) {
    const auto begin = finite.begin() + static_cast<std::ptrdiff_t>(s * finite.size() / stretches);
    const auto end = finite.begin() + static_cast<std::ptrdiff_t>((s + 1) * finite.size() / stretches);
    const auto by_value = [&](size_t a, size_t b) { return line.y[a] < line.y[b]; };
    const auto [low, high] = std::minmax_element(begin, end, by_value);
    keep(std::min(*low, *high));
    if (*low != *high) keep(std::max(*low, *high));
  }
  return thin;
}

std::vector<double> Smoothed(const std::vector<double>& y, double steps) {
  const double keep = 1.0 - 1.0 / std::max(1.0, steps);
  std::vector<double> smooth;
  smooth.reserve(y.size());
  double sum = 0.0, weight = 0.0;
  for (const double value : y) {
    if (std::isfinite(value)) {
      sum = keep * sum + value;
      weight = keep * weight + 1.0;
    }
    smooth.push_back(std::isfinite(value) ? sum / weight : value);
  }
  return smooth;
}

std::string DrawLineChart(const LineChart& chart) {
  std::vector<ChartLine> lines;
  bool any = false;
  for (const ChartLine& line : chart.lines) {
    RUNG_CHECK(line.x.size() == line.y.size(), "chart: a value for every place");
    lines.push_back(Thinned(line, kPoints));
    any = any || !lines.back().x.empty();
  }
  if (!any) return "";
  const Scale scale = ScaleOf(chart, lines);
  std::string svg = fmt::format(
      "<svg class=\"chart\" id=\"{0}\" viewBox=\"0 0 {1} {2}\" role=\"img\" aria-labelledby=\"{0}-title\" "
      "data-chart=\"{3}\"><title id=\"{0}-title\">{4}</title>\n<clipPath id=\"{0}-clip\"><rect x=\"{5}\" "
      "y=\"{6}\" width=\"{7}\" height=\"{8}\"/></clipPath>\n",
      EscapeXml(chart.id), kWidth, kHeight, EscapeXml(DataOf(chart, lines, scale)),
      EscapeXml(fmt::format("{} ({}) over {}", chart.title, chart.unit, chart.x_name)), kLeft, kTop - 5,
      kRight - kLeft + 5, kBottom - kTop + 10);
  DrawAxes(chart, scale, &svg);
  svg += fmt::format("<g clip-path=\"url(#{}-clip)\">\n", EscapeXml(chart.id));
  for (const ChartLine& line : lines) {
    if (line.kind == ChartLine::Kind::kFaint) DrawLine(line, scale, &svg);
  }
  for (const ChartLine& line : lines) {
    if (line.kind != ChartLine::Kind::kFaint) DrawLine(line, scale, &svg);
  }
  return svg + "</g>\n<g class=\"hover\"></g>\n</svg>\n";
}

}  // namespace rung::cli
