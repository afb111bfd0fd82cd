// What every page of `rung report` holds: its style, and the script that says the values under a pointer.
#pragma once

namespace rung::cli {

extern const char* const kReportStyle;
extern const char* const kReportScript;

}  // namespace rung::cli
