#include "cli/cli.h"

int main(int argc, char** argv) { return rung::cli::Main(argc, argv); }
