#include "cli/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/text.h"

namespace rung::cli {
namespace {

// Neighbours in a stack differ in lightness as well as in hue.
constexpr std::array<const char*, 14> kFills = {"#35618f", "#e8a33d", "#6fb07f", "#b5462f", "#8fc1de",
                                                "#7a5195", "#d9c24a", "#2f7f79", "#ef8f84", "#5b5b5b",
                                                "#b9a0d0", "#8a6a42", "#a9c46c", "#c9c9c9"};
constexpr const char* kFaint = "#d5d5d5";
constexpr const char* kDark = "#1b1b1b";
constexpr const char* kLimit = "#b3001b";

constexpr double kLeft = 64, kTop = 52, kPlotHeight = 380, kBarWidth = 72, kBarPitch = 124, kBelow = 62,
                 kLegendWidth = 210, kLegendPitch = 20;
// Segments below this many pixels get no number of their own.
constexpr double kLeastLabelled = 13;

// 1, 2 or 5 times a power of ten: three to eight steps up to `most`.
double TickStep(double most) {
  const double rough = most / 8.0, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10.0 * power;
}

std::string TickText(double value) {
  return value >= 100.0 ? fmt::format("{:.0f}", value)
         : value >= 1.0 ? fmt::format("{:.1f}", value)
                        : fmt::format("{:.2f}", value);
}

double Total(const StackedBars::Bar& bar) {
  return std::accumulate(bar.values.begin(), bar.values.end(), 0.0);
}

// Where things are: the value axis, and the middle of each bar.
struct BarScale {
  explicit BarScale(const StackedBars& chart) : bars(static_cast<double>(chart.bars.size())) {
    double largest = chart.limit;
    for (const StackedBars::Bar& bar : chart.bars) largest = std::max(largest, Total(bar));
    step = TickStep(std::max(largest, 1e-6));
    most = step * std::ceil(std::max(largest, 1e-6) * 1.04 / step);
  }
  double y(double value) const { return kTop + kPlotHeight * (1.0 - value / most); }
  double middle(size_t bar) const { return kLeft + kBarPitch * (static_cast<double>(bar) + 0.5); }
  double right() const { return kLeft + kBarPitch * bars; }
  double bars, step = 1.0, most = 1.0;
};

void DrawAxis(const StackedBars& chart, const BarScale& scale, Svg* svg) {
  svg->Text(kLeft - 8, kTop - 14, chart.unit, {.anchor = Svg::Anchor::kEnd});
  for (double i = 0; i * scale.step <= scale.most * 1.000001; ++i) {
    const double value = i * scale.step, y = scale.y(value);
    svg->Line(kLeft, y, scale.right(), y, i == 0 ? kDark : kFaint);
    svg->Text(kLeft - 8, y + 4, fmt::format("{:.6g}", value), {.anchor = Svg::Anchor::kEnd});
  }
}

void DrawBar(const StackedBars& chart, size_t index, const BarScale& scale, Svg* svg) {
  const StackedBars::Bar& bar = chart.bars[index];
  RUNG_CHECK(bar.values.size() == chart.series.size(), "chart: one value per series");
  const double middle = scale.middle(index);
  double below = 0.0;
  for (size_t s = 0; s < bar.values.size(); ++s) {
    const double value = bar.values[s];
    if (value <= 0.0) continue;
    const double top = scale.y(below + value), height = scale.y(below) - top;
    svg->Rect(middle - kBarWidth / 2, top, kBarWidth, height, kFills[s % kFills.size()],
              fmt::format("{}: {:.3g} {}", chart.series[s], value, chart.unit));
    if (height >= kLeastLabelled) {
      // A plate keeps dark digits readable on any fill.
      const double y = top + height / 2;
      svg->Rect(middle - 17, y - 6.5, 34, 13, "#ffffff");
      svg->Text(middle, y + 4, TickText(value), {.size = 11, .anchor = Svg::Anchor::kMiddle});
    }
    below += value;
  }
  svg->Text(middle, scale.y(below) - 6, TickText(below),
            {.size = 13, .bold = true, .anchor = Svg::Anchor::kMiddle});
  svg->Text(middle, kTop + kPlotHeight + 20, bar.name, {.bold = true, .anchor = Svg::Anchor::kMiddle});
  if (!bar.note.empty()) {
    svg->Text(middle, kTop + kPlotHeight + 37, bar.note, {.size = 11, .anchor = Svg::Anchor::kMiddle});
  }
}

// Top to bottom as the segments lie in a bar, then the limit.
void DrawLegend(const StackedBars& chart, double x, Svg* svg) {
  double y = kTop;
  for (size_t i = chart.series.size(); i-- > 0; y += kLegendPitch) {
    svg->Rect(x, y, 13, 13, kFills[i % kFills.size()]);
    svg->Text(x + 20, y + 11, chart.series[i], {});
  }
  if (chart.limit > 0.0) {
    svg->Line(x - 3, y + 7, x + 16, y + 7, kLimit, true);
    svg->Text(x + 20, y + 11, chart.limit_name, {});
  }
}

}  // namespace

std::string EscapeXml(std::string_view text) {
  const bool is_text = IsUtf8(text);
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else if (c == '\'') {
      escaped += "&#39;";
    } else if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !is_text)) {
      escaped += '?';
    } else {
      escaped += c;
    }
  }
  return escaped;
}

Svg::Svg(double width, double height)
    : text_(fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.6g}\" height=\"{1:.6g}\" "
                        "viewBox=\"0 0 {0:.6g} {1:.6g}\" font-family=\"system-ui, sans-serif\">\n",
                        width, height)) {
  Rect(0, 0, width, height, "#ffffff");
}

void Svg::Rect(double x, double y, double width, double height, std::string_view fill,
               std::string_view hint) {
  text_ += fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"", x, y,
                       width, height, EscapeXml(fill));
  text_ += hint.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", EscapeXml(hint));
}

void Svg::Line(double x0, double y0, double x1, double y1, std::string_view stroke, bool dashed) {
  text_ += fmt::format("<line x1=\"{:.2f}\" y1=\"{:.2f}\" x2=\"{:.2f}\" y2=\"{:.2f}\" stroke=\"{}\"{}/>\n",
                       x0, y0, x1, y1, EscapeXml(stroke), dashed ? " stroke-dasharray=\"6 4\"" : "");
}

void Svg::Text(double x, double y, std::string_view text, const Font& font) {
  constexpr const char* kAnchors[] = {"start", "middle", "end"};
  text_ += fmt::format(
      "<text x=\"{:.2f}\" y=\"{:.2f}\" font-size=\"{:.6g}\" text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n", x,
      y, font.size, kAnchors[static_cast<int>(font.anchor)], font.fill,
      font.bold ? " font-weight=\"bold\"" : "", EscapeXml(text));
}

std::string DrawStackedBars(const StackedBars& chart) {
  const BarScale scale(chart);
  const double legend = kLegendPitch * static_cast<double>(chart.series.size() + 1);
  // About 7 pixels a character of the title.
  const double titled = kLeft + 7.5 * static_cast<double>(chart.title.size());
  Svg svg(std::max(scale.right() + kLegendWidth, titled), kTop + std::max(kPlotHeight, legend) + kBelow);
  svg.Text(16, 24, chart.title, {.size = 15, .bold = true});
  DrawAxis(chart, scale, &svg);
  for (size_t b = 0; b < chart.bars.size(); ++b) DrawBar(chart, b, scale, &svg);
  if (chart.limit > 0.0) {
    const double y = scale.y(chart.limit);
    svg.Line(kLeft, y, scale.right(), y, kLimit, true);
  }
  DrawLegend(chart, scale.right() + 24, &svg);
  return svg.Finish();
}

}  // namespace rung::cli
