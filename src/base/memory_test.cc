// What a container may still take, as the kernel's files say it.
#include "base/memory.h"

#include <gtest/gtest.h>

#include "base/test_support.h"

namespace rung {
namespace {

class MemoryOfGroupTest : public FolderTest {
 protected:
  void Version2(const std::string& limit, uint64_t used, uint64_t files) const {
    Write("memory.max", limit + "\n");
    Write("memory.current", std::to_string(used) + "\n");
    Write("memory.stat", "anon 77\nfile 5\nunevictable 9\ninactive_file " + std::to_string(files - 10) +
                             "\nactive_file 10\nslab 3\n");
  }
};

TEST_F(MemoryOfGroupTest, NothingWithoutALimit) {
  EXPECT_FALSE(MemoryOfGroup(folder_).has_value());
  Version2("max", 1000, 10);
  EXPECT_FALSE(MemoryOfGroup(folder_).has_value());
}

// A model that was hashed is in the page cache: it fits, as it did before.
TEST_F(MemoryOfGroupTest, PagesOfFilesAreNotTaken) {
  Version2("8000", 6000, 5000);
  EXPECT_EQ(MemoryOfGroup(folder_), std::optional<uint64_t>(7000));
  Version2("8000", 6000, 9000);  // the numbers are not of one instant
  EXPECT_EQ(MemoryOfGroup(folder_), std::optional<uint64_t>(8000));
}

TEST_F(MemoryOfGroupTest, AFullOneHasNoneLeft) {
  Version2("8000", 8100, 50);
  EXPECT_EQ(MemoryOfGroup(folder_), std::optional<uint64_t>(0));
}

TEST_F(MemoryOfGroupTest, Version1) {
  Write("memory.limit_in_bytes", "8000\n");
  Write("memory.usage_in_bytes", "6000\n");
  Write("memory.stat", "inactive_file 1\nactive_file 2\ntotal_inactive_file 4000\ntotal_active_file 500\n");
  EXPECT_EQ(MemoryOfGroup(folder_), std::optional<uint64_t>(6500));
}

}  // namespace
}  // namespace rung
