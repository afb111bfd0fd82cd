#include "cli/svg.h"

#include "cli/test_support.h"
#include "cli/xml_check.h"

namespace rung::cli {
namespace {

TEST(SvgTest, EscapesWhatXmlReads) {
  EXPECT_EQ(EscapeXml("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
  EXPECT_EQ(EscapeXml(std::string("a\0b\x1f\n", 5)), "a?b??");
  EXPECT_EQ(EscapeXml("gr\xc3\xb6\xc3\x9f"
                      "er"),
            "gr\xc3\xb6\xc3\x9f"
            "er");
  EXPECT_EQ(EscapeXml("not utf-8 \xff"), "not utf-8 ?");
}

TEST(SvgTest, HostileNamesStayText) {
  StackedBars chart;
  chart.title = "</text><script>alert(1)</script> & \x01";
  chart.unit = "<GiB>";
  chart.series = {"a&b", "\"quoted\""};
  chart.bars = {{"<bar>", "'note'", {1.0, 2.0}}};
  chart.limit = 2.5;
  chart.limit_name = "limit <";
  const std::string svg = DrawStackedBars(chart);
  EXPECT_EQ(XmlFault(svg), "");
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_EQ(svg.find("http", svg.find("http://www.w3.org/2000/svg") + 4), std::string::npos);
}

// Heights of the coloured segments are the values, on one scale, without gaps.
TEST(SvgTest, SegmentsStackToTheirTotal) {
  StackedBars chart;
  chart.title = "t";
  chart.unit = "GiB";
  chart.series = {"a", "b", "c"};
  chart.bars = {{"one", "", {1.0, 0.0, 3.0}}, {"two", "", {8.0, 0.0, 0.0}}};
  const std::string svg = DrawStackedBars(chart);
  std::vector<double> tops, heights;
  for (size_t at = 0; (at = svg.find("<rect", at)) != std::string::npos; ++at) {
    const std::string tag = svg.substr(at, svg.find('>', at) - at);
    const bool segment = svg.compare(svg.find('>', at) + 1, 7, "<title>") == 0;
    if (!segment) continue;
    tops.push_back(std::stod(tag.substr(tag.find(" y=\"") + 4)));
    heights.push_back(std::stod(tag.substr(tag.find("height=\"") + 8)));
  }
  ASSERT_EQ(heights.size(), 3u);  // nothing is drawn for zeros
  EXPECT_NEAR(heights[1], 3 * heights[0], 0.03);
  EXPECT_NEAR(heights[2], 8 * heights[0], 0.05);
  EXPECT_NEAR(tops[1] + heights[1], tops[0], 0.02);
  EXPECT_NEAR(tops[0] + heights[0], tops[2] + heights[2], 0.02);
}

TEST(SvgTest, AChartOfNothingIsStillADocument) {
  StackedBars chart;
  chart.bars = {{"empty", "", {}}};
  EXPECT_EQ(XmlFault(DrawStackedBars(chart)), "");
}

}  // namespace
}  // namespace rung::cli
