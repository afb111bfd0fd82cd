// Lines over steps as SVG inside an HTML page. Colours come from the page's style: classes c0 to c5 are runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace rung::cli {

struct ChartLine {
  enum class Kind : uint8_t { kLine, kFaint, kPoints };  // kFaint: the raw values behind a smoothed line
  std::string name;
  Kind kind = Kind::kLine;
  size_t color = 0;          // of the run; any number
  std::vector<double> x, y;  // as many; x rises. Values that are not finite are gaps.
};

struct LineChart {
  std::string id;  // of the element: letters, digits, '-'
  std::string title, unit, x_name;
  std::vector<ChartLine> lines;
  bool from_zero = false;  // the value axis begins at 0
};

// Ticks at 1, 2 or 5 times a power of ten that cover [low, high]: three to seven. A range that is no range is
// widened.
std::vector<double> Ticks(double low, double high);

// At most `most` points, 2 <= most: of each stretch of a longer line the smallest and the largest value. Gaps
// are left out.
ChartLine Thinned(const ChartLine& line, size_t most);

// Exponential average that forgets in about `steps` steps, without the pull of its beginning. Gaps stay.
std::vector<double> Smoothed(const std::vector<double>& y, double steps);

// The drawing and, as JSON in its data-chart attribute, what a script needs to say the values under a
// pointer. Empty when there is nothing finite to draw. Raw values far outside of the rest are cut off.
std::string DrawLineChart(const LineChart& chart);

}  // namespace rung::cli
