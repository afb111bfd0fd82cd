#include "cli/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cli/line_chart.h"
#include "cli/test_support.h"
#include "cli/xml_check.h"

namespace rung::cli {
namespace {

using ReportTest = FolderTest;

constexpr const char* kLog =
    "{\"event\":\"begin\",\"time\":\"2026-01-01T00:00:00Z\",\"step\":0,\"seconds\":0,\"text\":\"\"}\n"
    "{\"event\":\"plan\",\"step\":0,\"items\":[{\"name\":\"weights\",\"bytes\":1048576,\"note\":\"nf4\"}]}\n"
    "{\"step\":1,\"loss\":3.5,\"learning_rate\":0.001,\"tokens_per_second\":10,\"total_tokens\":64}\n"
    "{\"step\":2,\"loss\":null,\"skipped\":true}\n"
    "{\"step\":3,\"loss\":2.5,\"seconds\":4.5,\"total_tokens\":1234567}\n"
    "{\"step\":3,\"eval_loss\":2.25,\"eval_token_accuracy\":0.5}\n";

TEST(Ticks, AreRoundAndCoverTheRange) {
  for (const auto& [low, high] :
       {std::pair{0.0, 1.0}, {2.31, 2.37}, {-5.0, 17.0}, {0.0, 1e-9}, {3.0, 3.0}, {0.0, 0.0}, {1e12, 3e12}}) {
    const std::vector<double> ticks = Ticks(low, high);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    EXPECT_LE(ticks.size(), 13u) << low << " " << high;
    EXPECT_LE(ticks.front(), low + 1e-9 * std::abs(low));
    EXPECT_GE(ticks.back(), high - 1e-9 * std::abs(high));
  }
  EXPECT_EQ(Ticks(0.0, 10.0), (std::vector<double>{0, 2, 4, 6, 8, 10}));
}

TEST(Thinned, KeepsExtremesInOrder) {
  ChartLine line;
  for (int i = 0; i < 10000; ++i) {
    line.x.push_back(i);
    line.y.push_back(i == 5001 ? 99.0 : i == 7003 ? -99.0 : i == 3 ? std::nan("") : 1.0);
  }
  const ChartLine thin = Thinned(line, 100);
  EXPECT_LE(thin.x.size(), 100u);
  EXPECT_TRUE(std::is_sorted(thin.x.begin(), thin.x.end()));
  EXPECT_EQ(*std::max_element(thin.y.begin(), thin.y.end()), 99.0);
  EXPECT_EQ(*std::min_element(thin.y.begin(), thin.y.end()), -99.0);
}

TEST(Smoothed, OfAConstantIsTheConstantAndGapsStay) {
  const std::vector<double> smooth = Smoothed({2.0, 2.0, std::nan(""), 2.0}, 10.0);
  EXPECT_DOUBLE_EQ(smooth[0], 2.0);
  EXPECT_DOUBLE_EQ(smooth[3], 2.0);
  EXPECT_TRUE(std::isnan(smooth[2]));
  EXPECT_EQ(Smoothed({1.0, 3.0}, 1.0), (std::vector<double>{1.0, 3.0}));
}

TEST(LineChart, IsWellFormedWhateverItIsGiven) {
  LineChart chart{"loss", "a < b & \"c\"", "'unit'", "st<ep", {}};
  EXPECT_EQ(DrawLineChart(chart), "");
  chart.lines = {{"run <script>", ChartLine::Kind::kLine, 7, {1, 2, 3}, {1.0, std::nan(""), INFINITY}},
                 {"\xff", ChartLine::Kind::kFaint, 1, {1, 2, 3}, {1.0, 2.0, 3.0}},
                 {"e", ChartLine::Kind::kPoints, 1, {2}, {2.0}}};
  const std::string svg = DrawLineChart(chart);
  EXPECT_EQ(XmlFault(svg), "") << svg;
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  chart.lines = {{"nothing", ChartLine::Kind::kLine, 0, {1}, {std::nan("")}}};
  EXPECT_EQ(DrawLineChart(chart), "");
}

TEST_F(ReportTest, ForeignTextIsEscapedWhereverItStands) {
  const std::string evil = "</script><script>alert(1)</script><img src=x onerror=y>\"'&";
  ReportRun run;
  run.name = evil;
  run.history.steps.resize(1);
  run.history.steps[0].step = 1;
  run.history.events = {{evil, evil, evil, 0, 0.0}, {"stopped", evil, "", 0, 0.0}};
  run.history.plan = {{evil, 1, evil, ""}};
  run.samples = {{evil, 0, evil, evil, evil}};
  run.settings = {{evil, evil}};
  const ReportRun runs[] = {run, run};
  for (const size_t n : {1u, 2u}) {
    const std::string page = ReportPage(std::span(runs).first(n));
    EXPECT_EQ(page.find("<script>alert"), std::string::npos);
    EXPECT_EQ(page.find("<img"), std::string::npos);
    EXPECT_EQ(page.find("onerror=y>\""), std::string::npos);
    EXPECT_NE(page.find("&lt;img src=x onerror=y&gt;&quot;&#39;&amp;"), std::string::npos);
  }
}

TEST_F(ReportTest, AnEmptyRunIsAPage) {
  const ReportRun run;
  EXPECT_NE(ReportPage({&run, 1}).find("no end recorded"), std::string::npos);
}

TEST_F(ReportTest, WritesAPageOfSeveralRuns) {
  for (const char* name : {"a", "b"}) {
    std::filesystem::create_directories(folder_ / name);
    Write(std::string(name) + "/train_log.jsonl", kLog);
  }
  Write("a/run.json",
        "{\"options\":{\"seed\":{\"value\":1,\"origin\":\"flag\"}},\"x\":{\"y\":null},\"same\":[1]}");
  Write("b/run.json",
        "{\"options\":{\"seed\":{\"value\":2,\"origin\":\"flag\"}},\"x\":{\"y\":null},\"same\":[1]}");
  const std::string out = (folder_ / "r.html").string();
  RunVerb(AddReport, {(folder_ / "a").string(), (folder_ / "b").string(), "--out", out});
  const std::string page = ReadTextFile(out, 1 << 24).OrThrow();
  EXPECT_NE(page.find("id=\"difference\""), std::string::npos);
  EXPECT_NE(page.find("<tr><td>options.seed</td><td class=\"text\">1</td><td class=\"text\">2</td>"),
            std::string::npos);
  EXPECT_NE(page.find("1,234,567"), std::string::npos);
  EXPECT_NE(page.find("id=\"loss\""), std::string::npos);
  EXPECT_NE(page.find("1.0 MiB"), std::string::npos);
}

TEST_F(ReportTest, RefusesAFolderThatIsNoRun) {
  const auto [code, message] = Refusal(AddReport, {folder_.string()});
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_NE(message.find("train_log.jsonl"), std::string::npos) << message;
  Write("train_log.jsonl", kLog);
  Write("run.json", "{\"options\":");
  const std::string out = (folder_ / "x").string();
  testing::internal::CaptureStderr();
  RunVerb(AddReport, {folder_.string(), "--out", out});
  EXPECT_NE(testing::internal::GetCapturedStderr().find("run.json"), std::string::npos);
}

TEST_F(ReportTest, ReplacesItsOwnPagesOnly) {
  const std::string log = Write("train_log.jsonl", kLog).string(), out = (folder_ / "r.html").string();
  for (int time = 0; time < 2; ++time) RunVerb(AddReport, {folder_.string(), "--out", out});
  const std::string other = Write("other.html", "<!DOCTYPE html>\n<title>mine</title>").string();
  for (const std::string& name : {log, other, folder_.string()}) {
    EXPECT_EQ(Refusal(AddReport, {folder_.string(), "--out", name}).first, ExitCode::kUsage) << name;
  }
  EXPECT_EQ(ReadTextFile(log, 1 << 20).OrThrow(), kLog);
}

}  // namespace
}  // namespace rung::cli
