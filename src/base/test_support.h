// For tests of any room: a folder of one's own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/files.h"

namespace rung {

class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("rung_" + std::string(info->name()) + "_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Path Write(const std::string& name, const std::string& text) const {
    EXPECT_TRUE(WriteTextFile(folder_ / name, text).ok());
    return folder_ / name;
  }
  Path folder_;
};

}  // namespace rung
