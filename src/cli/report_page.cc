#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "base/text.h"
#include "cli/duration.h"
#include "cli/line_chart.h"
#include "cli/report.h"
#include "cli/report_assets.h"
#include "cli/svg.h"

namespace rung::cli {
namespace {

// Steps that a smoothed loss averages over: a fortieth of the run.
constexpr double kSmoothShare = 1.0 / 40.0;
// Longest answers are of some hundred tokens; prompts may be whole documents.
constexpr size_t kLongestText = 4000;
constexpr size_t kMostNotes = 200;
// Values of run.json that differ between any two runs and say nothing, or what model.sha256 says.
constexpr const char* kNoSettings[] = {"format_version", "started",          "resumed",
                                       "options.out",    "options.progress", "model.files"};

using Runs = std::span<const ReportRun>;
using train::EvalReport;
using train::StepReport;

// Lines stay lines; everything else is as EscapeXml makes it.
std::string Escape(std::string_view text) {
  std::string escaped;
  for (size_t begin = 0;;) {
    const size_t end = text.find('\n', begin);
    escaped += EscapeXml(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return escaped;
    escaped += '\n';
    begin = end + 1;
  }
}

std::string Shortened(std::string text) {
  if (text.size() <= kLongestText) return text;
  size_t end = kLongestText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not inside a character
  return text.substr(0, end) + " …";
}

std::string Thousands(int64_t value) {
  std::string text = fmt::format("{}", value);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3)
    text.insert(static_cast<size_t>(at), ",");
  return text;
}

std::string Fixed(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "not finite";
}

std::string Bytes(uint64_t bytes) { return bytes == 0 ? "–" : FormatBytes(bytes); }

std::string Key(const ReportRun& run, size_t index) {
  return fmt::format("<span class=\"key\"><span class=\"swatch c{}\"></span><span>{}</span></span>",
                     index % 6, Escape(run.name));
}

std::string Cell(const std::string& text) { return fmt::format("<td class=\"number\">{}</td>", text); }

// "finished", "interrupted", "stopped: reason", or what else the record ends with.
std::string EndOf(const ReportRun& run) {
  std::string end = "<span class=\"warn\">no end recorded</span>";
  for (const train::RunEvent& event : run.history.events) {
    if (event.kind == "begin" || event.kind == "resumed") end = "<span class=\"warn\">no end recorded</span>";
    if (event.kind == "finished") end = "finished";
    if (event.kind == "interrupted") end = "<span class=\"warn\">interrupted</span>";
    if (event.kind == "stopped") {
      end =
          fmt::format("<span class=\"warn\" title=\"{}\">stopped by an error</span>", EscapeXml(event.text));
    }
  }
  return end;
}

// The mean over the last tenth of the steps: one step says little.
double LastLoss(const std::vector<StepReport>& steps) {
  double sum = 0.0, n = 0.0;
  const size_t from = steps.size() - std::max<size_t>(1, steps.size() / 10);
  for (size_t i = from; i < steps.size(); ++i) {
    if (!std::isfinite(steps[i].loss)) continue;
    sum += steps[i].loss;
    n += 1.0;
  }
  return sum / n;
}

const EvalReport* BestEval(const std::vector<EvalReport>& evals) {
  const EvalReport* best = nullptr;
  for (const EvalReport& eval : evals) {
    if (std::isfinite(eval.loss) && (!best || eval.loss < best->loss)) best = &eval;
  }
  return best;
}

// Rows of the table of numbers.
struct NumberRow {
  const char* name;
  std::string (*text)(const train::RunHistory&);
};

double MedianSpeed(const std::vector<StepReport>& steps) {
  std::vector<double> speed;
  for (const StepReport& step : steps) {
    if (std::isfinite(step.tokens_per_second)) speed.push_back(step.tokens_per_second);
  }
  if (speed.empty()) return 0.0;
  const auto middle = speed.begin() + static_cast<std::ptrdiff_t>(speed.size() / 2);
  std::nth_element(speed.begin(), middle, speed.end());
  return *middle;
}

using History = train::RunHistory;
constexpr const char* kNone = "–";
const NumberRow kNumbers[] = {
    {"steps",
     [](const History& h) -> std::string { return Thousands(h.steps.empty() ? 0 : h.steps.back().step); }},
    {"tokens",
     [](const History& h) -> std::string {
       return Thousands(h.steps.empty() ? 0 : h.steps.back().total_tokens);
     }},
    {"time",
     [](const History& h) -> std::string {
       return h.steps.empty() ? kNone : FormatDuration(h.steps.back().seconds);
     }},
    {"loss, mean of the last tenth",
     [](const History& h) -> std::string { return h.steps.empty() ? kNone : Fixed(LastLoss(h.steps), 4); }},
    {"evaluation loss, last",
     [](const History& h) -> std::string { return h.evals.empty() ? kNone : Fixed(h.evals.back().loss, 4); }},
    {"evaluation loss, best",
     [](const History& h) -> std::string {
       const EvalReport* best = BestEval(h.evals);
       return best ? fmt::format("{} at step {}", Fixed(best->loss, 4), Thousands(best->step)) : kNone;
     }},
    {"held-out tokens right",
     [](const History& h) -> std::string {
       return h.evals.empty() ? kNone : fmt::format("{:.1f} %", 100.0 * h.evals.back().token_accuracy);
     }},
    {"held-out answers exact",
     [](const History& h) -> std::string {
       const bool any = !h.evals.empty() && h.evals.back().exact_match;
       return any ? fmt::format("{:.1f} %", 100.0 * *h.evals.back().exact_match) : kNone;
     }},
    {"tokens per second, median",
     [](const History& h) -> std::string {
       return h.steps.empty() ? kNone : Thousands(std::llround(std::min(MedianSpeed(h.steps), 1e15)));
     }},
    {"memory, largest", [](const History& h) -> std::string { return Bytes(h.resident_peak); }},
    {"steps skipped as not finite", [](const History& h) -> std::string {
       return Thousands(
           std::count_if(h.steps.begin(), h.steps.end(), [](const auto& s) { return s.skipped; }));
     }}};

void AddNumbers(Runs runs, std::string* page) {
  *page += "<h2>Final numbers</h2>\n<div class=\"card scroll\"><table id=\"numbers\"><thead><tr><th></th>";
  for (size_t i = 0; i < runs.size(); ++i)
    *page += fmt::format("<th class=\"number\" scope=\"col\">{}</th>", Key(runs[i], i));
  *page += "</tr></thead><tbody>\n<tr><th scope=\"row\">end</th>";
  for (const ReportRun& run : runs) *page += Cell(EndOf(run));
  *page += "</tr>\n";
  for (const NumberRow& row : kNumbers) {
    *page += fmt::format("<tr><th scope=\"row\">{}</th>", row.name);
    for (const ReportRun& run : runs) *page += Cell(row.text(run.history));
    *page += "</tr>\n";
  }
  *page += "</tbody></table></div>\n";
}

void AddChart(const LineChart& chart, const std::string& note, std::string* page) {
  const std::string svg = DrawLineChart(chart);
  if (svg.empty()) return;
  *page += fmt::format("<figure><figcaption>{} <small>{}{}{}</small></figcaption>\n{}</figure>\n",
                       Escape(chart.title), Escape(chart.unit), note.empty() ? "" : "; ", Escape(note), svg);
}

std::string Named(Runs runs, const ReportRun& run, const std::string& what) {
  return runs.size() > 1 ? fmt::format("{}: {}", run.name, what) : what;
}

template <class Report>
ChartLine LineOf(const std::string& name, size_t color, const std::vector<Report>& reports,
                 const std::function<double(const Report&)>& value) {
  ChartLine line;
  line.name = name;
  line.color = color;
  for (const Report& report : reports) {
    line.x.push_back(static_cast<double>(report.step));
    line.y.push_back(value(report));
  }
  return line;
}

void AddLossChart(Runs runs, std::string* page) {
  LineChart chart{"loss", "Loss", "nats per target token", "step", {}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const train::RunHistory& h = runs[i].history;
    ChartLine raw =
        LineOf<StepReport>(Named(runs, runs[i], "step"), i, h.steps, [](const auto& s) { return s.loss; });
    ChartLine smooth = raw;
    smooth.name = Named(runs, runs[i], "smoothed");
    smooth.y = Smoothed(raw.y, std::max(1.0, kSmoothShare * static_cast<double>(raw.y.size())));
    raw.kind = ChartLine::Kind::kFaint;
    ChartLine eval = LineOf<EvalReport>(Named(runs, runs[i], "evaluation"), i, h.evals,
                                        [](const auto& e) { return e.loss; });
    eval.kind = ChartLine::Kind::kPoints;
    for (ChartLine* line : {&raw, &smooth, &eval}) chart.lines.push_back(std::move(*line));
  }
  AddChart(chart,
           "thin: each step, thick: smoothed over a fortieth of the run, dashed with points: evaluation",
           page);
}

struct StepChart {
  const char *id, *title, *unit;
  std::function<double(const StepReport&)> value;
  bool from_zero = false, smooth = false;
};

void AddStepChart(Runs runs, const StepChart& what, std::string* page) {
  LineChart chart{what.id, what.title, what.unit, "step", {}, what.from_zero};
  for (size_t i = 0; i < runs.size(); ++i) {
    ChartLine line =
        LineOf<StepReport>(Named(runs, runs[i], what.title), i, runs[i].history.steps, what.value);
    if (what.smooth) {
      ChartLine smooth = line;
      line.kind = ChartLine::Kind::kFaint;
      line.name = Named(runs, runs[i], "step");
      smooth.name = Named(runs, runs[i], "smoothed");
      smooth.y = Smoothed(line.y, std::max(1.0, kSmoothShare * static_cast<double>(line.y.size())));
      chart.lines.push_back(std::move(smooth));
    }
    chart.lines.push_back(std::move(line));
  }
  AddChart(chart, "", page);
}

void AddAccuracyChart(Runs runs, std::string* page) {
  LineChart chart{"accuracy", "Right on held-out records", "percent", "step", {}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::vector<EvalReport>& evals = runs[i].history.evals;
    if (evals.size() < 2) continue;  // a single value is in the table
    chart.lines.push_back(LineOf<EvalReport>(Named(runs, runs[i], "tokens"), i, evals,
                                             [](const auto& e) { return 100.0 * e.token_accuracy; }));
    ChartLine exact = LineOf<EvalReport>(Named(runs, runs[i], "exact answers"), i, evals, [](const auto& e) {
      return e.exact_match ? 100.0 * *e.exact_match : std::nan("");
    });
    exact.kind = ChartLine::Kind::kPoints;
    chart.lines.push_back(std::move(exact));
  }
  AddChart(chart, "line: tokens, dashed with points: exact answers", page);
}

void AddCharts(Runs runs, std::string* page) {
  *page += "<h2>Curves</h2>\n<div class=\"grid\">\n";
  AddLossChart(runs, page);
  AddAccuracyChart(runs, page);
  const StepChart charts[] = {
      {"learning-rate", "Learning rate", "of each step", [](const auto& s) { return s.learning_rate; }, true},
      {"grad-norm", "Gradient norm", "of the mean gradient, before clipping",
       [](const auto& s) { return s.grad_norm; }, true, true},
      {"throughput", "Throughput", "tokens per second", [](const auto& s) { return s.tokens_per_second; },
       true, true},
      {"waiting", "Waiting for data", "percent of the step's time",
       [](const auto& s) { return 100.0 * s.waiting; }, true, true},
      {"resident", "Resident memory", "MiB",
       [](const auto& s) { return static_cast<double>(s.resident_bytes) / (1 << 20); }, true}};
  for (const StepChart& chart : charts) AddStepChart(runs, chart, page);
  *page += "</div>\n";
}

void AddBar(const std::string& label, uint64_t total, size_t color, std::string_view parts,
            std::string* page) {
  *page += fmt::format(
      "<div class=\"label\"><span>{}</span><span>{}</span></div>"
      "<div class=\"bar c{}\" aria-hidden=\"true\">{}</div>\n",
      label, FormatBytes(total), color % 6, parts);
}

std::string BarPart(uint64_t bytes, uint64_t most, const std::string& name) {
  return fmt::format("<span style=\"width:{:.3f}%\" title=\"{}: {}\"></span>",
                     100.0 * static_cast<double>(bytes) / static_cast<double>(most), EscapeXml(name),
                     FormatBytes(bytes));
}

void AddMemoryOf(const ReportRun& run, size_t index, std::string* page) {
  const train::RunHistory& h = run.history;
  const uint64_t most = std::max<uint64_t>({h.planned_bytes, h.resident_peak, 1});
  *page += fmt::format("<div class=\"card\"><h3>{}</h3>\n", Key(run, index));
  std::string parts;
  for (const train::PlanItem& item : h.plan) parts += BarPart(item.bytes, most, item.name);
  AddBar("planned", h.planned_bytes, index, parts, page);
  if (h.resident_peak > 0) {
    const double share = 100.0 * static_cast<double>(h.resident_peak) /
                         static_cast<double>(std::max<uint64_t>(1, h.planned_bytes));
    AddBar(fmt::format("measured, largest ({:.0f} % of the plan)", share), h.resident_peak, index,
           BarPart(h.resident_peak, most, "measured"), page);
  }
  *page +=
      "<table><thead><tr><th>part</th><th class=\"number\">bytes</th><th>what it is made "
      "of</th></tr></thead><tbody>\n";
  for (const train::PlanItem& item : h.plan) {
    *page += fmt::format("<tr><td>{}</td><td class=\"number\">{}</td><td class=\"text soft\">{}</td></tr>\n",
                         Escape(item.name), FormatBytes(item.bytes), Escape(item.note));
  }
  *page += fmt::format(
      "<tr class=\"total\"><td>planned</td><td class=\"number\">{}</td><td></td></tr>\n"
      "<tr class=\"total\"><td>measured</td><td class=\"number\">{}</td><td></td></tr>\n"
      "</tbody></table></div>\n",
      FormatBytes(h.planned_bytes), Bytes(h.resident_peak));
}

void AddMemory(Runs runs, std::string* page) {
  const auto planned = [](const ReportRun& run) { return !run.history.plan.empty(); };
  if (std::none_of(runs.begin(), runs.end(), planned)) return;
  *page += "<h2>Memory: the plan and what was used</h2>\n<div class=\"grid\" id=\"memory\">\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    if (planned(runs[i])) AddMemoryOf(runs[i], i, page);
  }
  *page += "</div>\n";
}

std::string AnswerText(const std::string& answer, const std::string& expected) {
  if (answer.empty()) return "<span class=\"empty\">nothing</span>";
  const std::string text = Escape(Shortened(answer));
  return answer == expected ? text + " <span class=\"right\">✓ as expected</span>" : text;
}

void AddSamples(Runs runs, std::string* page) {
  const auto has = [](const ReportRun& run) { return !run.samples.empty(); };
  if (std::none_of(runs.begin(), runs.end(), has)) return;
  *page += "<h2>Samples: held-out prompts</h2>\n<div class=\"grid\" id=\"samples\">\n";
  // By prompt, in the order of the first run that has it: answers of several runs stand together.
  std::vector<const train::SampleLine*> prompts;
  std::set<std::string> seen;
  for (const ReportRun& run : runs) {
    for (const train::SampleLine& line : run.samples) {
      if (seen.insert(line.prompt).second) prompts.push_back(&line);
    }
  }
  for (const train::SampleLine* prompt : prompts) {
    *page += fmt::format(
        "<div class=\"card\"><dl class=\"sample\"><dt>prompt</dt><dd>{}</dd><dt>expected</dt><dd>{}</dd>",
        Escape(Shortened(prompt->prompt)), Escape(Shortened(prompt->expected)));
    for (size_t i = 0; i < runs.size(); ++i) {
      for (const train::SampleLine& line : runs[i].samples) {
        if (line.prompt != prompt->prompt) continue;
        *page +=
            fmt::format("<dt>{}{}</dt><dd>{}</dd>", Escape(line.stage),
                        runs.size() > 1 ? " " + Key(runs[i], i) : "", AnswerText(line.answer, line.expected));
      }
    }
    *page += "</dl></div>\n";
  }
  *page += "</div>\n";
}

void AddSettingsTable(Runs runs, const std::map<std::string, std::vector<std::string>>& rows, const char* id,
                      std::string* page) {
  *page += fmt::format("<div class=\"card scroll\"><table id=\"{}\"><thead><tr><th>setting</th>", id);
  for (size_t i = 0; i < runs.size(); ++i) *page += fmt::format("<th>{}</th>", Key(runs[i], i));
  *page += "</tr></thead><tbody>\n";
  for (const auto& [name, values] : rows) {
    *page += fmt::format("<tr><td>{}</td>", Escape(name));
    for (const std::string& value : values)
      *page += fmt::format("<td class=\"text\">{}</td>", Escape(Shortened(value)));
    *page += "</tr>\n";
  }
  *page += "</tbody></table></div>\n";
}

void AddSettings(Runs runs, std::string* page) {
  std::map<std::string, std::vector<std::string>> all, differing;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [name, value] : runs[i].settings) {
      if (std::find(std::begin(kNoSettings), std::end(kNoSettings), name) != std::end(kNoSettings)) continue;
      std::vector<std::string>& values = all[name];
      values.resize(runs.size());
      values[i] = value;
    }
  }
  if (all.empty()) return;
  for (const auto& [name, values] : all) {
    if (std::any_of(values.begin(), values.end(), [&first = values[0]](const auto& v) { return v != first; }))
      differing.emplace(name, values);
  }
  *page += "<h2>Settings</h2>\n";
  if (runs.size() > 1) {
    *page += differing.empty() ? "<p class=\"lead\">The settings of these runs are the same.</p>\n"
                               : "<p class=\"lead\">What differs between the runs:</p>\n";
    if (!differing.empty()) AddSettingsTable(runs, differing, "difference", page);
  }
  *page += fmt::format("<details><summary>all {} settings</summary>\n", all.size());
  AddSettingsTable(runs, all, "settings", page);
  *page += "</details>\n";
}

void AddEvents(Runs runs, std::string* page) {
  *page += "<h2>What happened</h2>\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::vector<train::RunEvent>& events = runs[i].history.events;
    const size_t from = events.size() - std::min(events.size(), kMostNotes);
    *page += fmt::format(
        "<details{}><summary>{} {} events{}</summary><div class=\"card scroll\"><table><thead><tr>"
        "<th>time</th><th class=\"number\">step</th><th>event</th><th>text</th></tr></thead><tbody>\n",
        runs.size() == 1 ? " open" : "", Key(runs[i], i), events.size(),
        from > 0 ? fmt::format(", the last {}", kMostNotes) : "");
    for (size_t e = from; e < events.size(); ++e) {
      *page += fmt::format(
          "<tr><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td "
          "class=\"text\">{}</td></tr>\n",
          Escape(events[e].time), events[e].step, Escape(events[e].kind), Escape(Shortened(events[e].text)));
    }
    *page += "</tbody></table></div></details>\n";
    if (runs[i].history.damaged_lines > 0) {
      *page += fmt::format("<p class=\"warn\">{}: {} damaged lines of its record are left out.</p>\n",
                           Escape(runs[i].name), runs[i].history.damaged_lines);
    }
  }
}

}  // namespace

std::string ReportPage(std::span<const ReportRun> runs) {
  const std::string title = runs.size() == 1 ? runs[0].name : fmt::format("{} runs", runs.size());
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      // The page asks for nothing, whatever text it was given.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n<title>{0} – {3}\n<style>{1}</style>\n</head>\n<body>\n"
      "<main>\n<h1>{0}</h1>\n<p class=\"lead\">Report of {2} by rung.</p>\n",
      Escape(title), kReportStyle, runs.size() == 1 ? "a training run" : "training runs", kPageTitle);
  if (runs.size() > 1) {
    page += "<ul class=\"legend\" aria-label=\"runs\">";
    for (size_t i = 0; i < runs.size(); ++i) page += fmt::format("<li>{}</li>", Key(runs[i], i));
    page += "</ul>\n";
  }
  AddNumbers(runs, &page);
  AddCharts(runs, &page);
  AddMemory(runs, &page);
  AddSamples(runs, &page);
  AddSettings(runs, &page);
  AddEvents(runs, &page);
  return page +
         fmt::format(
             "</main>\n<div id=\"tip\" role=\"status\"></div>\n<script>{}</script>\n</body>\n</html>\n",
             kReportScript);
}

}  // namespace rung::cli
