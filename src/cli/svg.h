// Drawings as SVG text: no fonts, scripts or files from elsewhere, dark on white.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rung::cli {

// Text as it may stand between tags and in attributes. What XML cannot hold (control characters, bytes that
// are not UTF-8) becomes '?'.
std::string EscapeXml(std::string_view text);

// Lengths are pixels; y grows downwards.
class Svg {
 public:
  Svg(double width, double height);

  enum class Anchor { kStart, kMiddle, kEnd };
  struct Font {
    double size = 12.0;
    bool bold = false;
    Anchor anchor = Anchor::kStart;
    const char* fill = "#1b1b1b";
  };
  // `hint` is shown when the pointer rests on it; empty: none.
  void Rect(double x, double y, double width, double height, std::string_view fill,
            std::string_view hint = {});
  void Line(double x0, double y0, double x1, double y1, std::string_view stroke, bool dashed = false);
  void Text(double x, double y, std::string_view text, const Font& font);
  // The whole document.
  std::string Finish() const { return text_ + "</svg>\n"; }

 private:
  std::string text_;
};

// Bars of segments, side by side. Every bar has a value for every series.
struct StackedBars {
  std::string title, unit;  // of the values, on the axis and in hints
  std::vector<std::string> series;
  struct Bar {
    std::string name, note;  // the note stands below the name
    std::vector<double> values;
  };
  std::vector<Bar> bars;
  double limit = 0.0;  // a dashed line; 0: none
  std::string limit_name;
};
std::string DrawStackedBars(const StackedBars& chart);

}  // namespace rung::cli
