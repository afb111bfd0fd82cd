// The command line: one verb, its options, one exit code (base/error.h).
#pragma once

namespace rung::cli {

int Main(int argc, char** argv);

}  // namespace rung::cli
