#include "data/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rung::data {
namespace {

using testing::ElementsAre;

TEST(Batch, PredictsTheNextIdOfItsOwnSample) {
  const Example a{{10, 11, 12, 13}, {0, 0, 1, 1}, 7};
  const Example b{{20, 21}, {0, 1}, 3};
  const Example c{{30, 31, 32}, {0, 1, 0}, 5};
  const Batch batch = MakeBatch({&a, &b, &c});
  EXPECT_THAT(batch.ids, ElementsAre(10, 11, 12, 20, 30, 31));
  EXPECT_THAT(batch.target, ElementsAre(-1, 12, 13, 21, 31, -1));
  EXPECT_THAT(batch.position, ElementsAre(0, 1, 2, 0, 0, 1));
  EXPECT_THAT(batch.starts, ElementsAre(0, 3, 4, 6));
  EXPECT_THAT(batch.records, ElementsAre(7, 3, 5));
  EXPECT_EQ(batch.rows(), 6);
  EXPECT_EQ(batch.target_count(), a.target_count() + b.target_count() + c.target_count());
}

TEST(Batch, ZeroIsAnIdLikeOthers) {
  const Example a{{0, 0}, {0, 1}, 0};
  const Batch batch = MakeBatch({&a});
  EXPECT_THAT(batch.target, ElementsAre(0));
  EXPECT_EQ(batch.target_count(), 1);
}

TEST(Batch, OfNothingHasNoRows) {
  const Batch batch = MakeBatch({});
  EXPECT_EQ(batch.rows(), 0);
  EXPECT_THAT(batch.starts, ElementsAre(0));
}

TEST(BatchDeathTest, RefusesASampleWithoutARow) {
  const Example one{{1}, {0}, 0};
  EXPECT_DEATH(MakeBatch({&one}), "two ids or more");
  const Example first{{1, 2}, {1, 1}, 0};
  EXPECT_DEATH(MakeBatch({&first}), "first id");
}

}  // namespace
}  // namespace rung::data
