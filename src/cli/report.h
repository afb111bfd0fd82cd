// `rung report`: runs as one HTML page that needs no network (docs/guide/report.md).
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "train/history.h"
#include "train/samples.h"

namespace rung::cli {

struct ReportRun {
  std::string name;  // the folder's, made different from the others'
  Path folder;
  train::RunHistory history;
  std::vector<train::SampleLine> samples;  // empty: none were made
  std::vector<std::pair<std::string, std::string>>
      settings;                  // of run.json: "options.seed" and "42"; may be empty
  std::string damaged_settings;  // why run.json was left out; empty: it was not
};

// In the title of every page: what tells it from another HTML file.
inline constexpr const char* kPageTitle = "rung report</title>";

// The page. Text from the runs is escaped wherever it stands.
std::string ReportPage(std::span<const ReportRun> runs);

}  // namespace rung::cli
