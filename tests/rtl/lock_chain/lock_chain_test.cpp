// lk_lock_chain against an AXI memory: pages are fetched with their tags, come out as plaintext in
// the order asked for, survive idles and back-pressure, and nothing passes after a failure.
#include "chain_sim.hpp"

namespace latchkey::lock_chain {
namespace {

TEST_F(Chain, PagesComeOutInOrderThroughIdlesAndBackPressure) {
  make(70, 3);
  for (const unsigned idle : {0u, 30u, 80u})
    for (const unsigned stall : {0u, 30u, 80u}) {
      const auto requests = sweep(0, 70, 1);
      run(requests, idle, stall);
      expect_plain(requests);
    }
}

TEST_F(Chain, OneBeatACycleWithTagsFetchedAhead) {
  make(256, 3);
  const auto requests = sweep(0, 256, 1);
  run(requests);
  expect_plain(requests);
  // 64 beats a page, 4 beats of tags every 16 pages, and the latency of the first and last page.
  EXPECT_LE(cycles_, 256u * 64 + 16 * 4 + 120);
}

// Tiles that straddle a tag line and are swept again and again take the line anew each time.
TEST_F(Chain, TilesAcrossATagLineSweptFortyTimes) {
  make(40, 3);
  const auto requests = sweep(12, 8, 40);
  run(requests, 10, 0);
  expect_plain(requests);
}

// A line of tags that was fetched ahead, and not used while many others were, is asked for anew.
TEST_F(Chain, TilesFromTheLastOfATagLine) {
  make(48, 3);
  auto requests = sweep(15, 10, 9);
  const auto behind = sweep(25, 8, 1);
  requests.insert(requests.end(), behind.begin(), behind.end());
  run(requests, 10, 0);
  EXPECT_FALSE(top_.fail_o);
  expect_plain(requests);
}

TEST_F(Chain, RandomOrder) {
  make(100, 3);
  std::vector<Request> requests;
  for (int i = 0; i < 300; ++i) {
    const auto p = static_cast<std::uint32_t>(rng_() % 100);
    requests.push_back({p, 3, p});
  }
  run(requests, 20, 20);
  expect_plain(requests);
}

TEST_F(Chain, NothingOfAChangedPageOrAfterItPasses) {
  make(20, 3);
  sealed_[std::size_t{9} * kPage + 1234] ^= 4;
  run(sweep(0, 20, 1), 10, 0);
  EXPECT_TRUE(top_.fail_o);
  EXPECT_EQ(top_.fail_page_o, 9u);
  for (int i = 0; i < 3000; ++i) tick();
  EXPECT_LE(out_.size(), std::size_t{9} * kPage);
}

TEST_F(Chain, ChangedTagWrongRegionAndWrongIndexFail) {
  make(4, 3);
  tags_[16 * 2 + 5] ^= 1;
  run(sweep(0, 4, 1));
  EXPECT_TRUE(top_.fail_o);
  EXPECT_EQ(top_.fail_page_o, 2u);
  for (const Request wrong : {Request{0, 4, 0}, Request{0, 3, 1}}) {
    flush();
    run({wrong});
    EXPECT_TRUE(top_.fail_o);
  }
}

TEST_F(Chain, FlushInTheMiddleLeavesACleanChain) {
  make(40, 3);
  for (int cut = 1; cut < 1500; cut += 97) {
    const auto requests = sweep(0, 40, 1);
    out_.clear();
    std::size_t next = 0;
    for (int i = 0; i < cut; ++i) {
      top_.req_valid_i = 1;
      top_.req_page_i = top_.req_index_i = requests[next].page;
      top_.req_region_i = 3;
      tick(20, 20);
      if (accepted_) ++next;
    }
    top_.req_valid_i = 0;
    flush();
    run(requests, 0, 10);
    expect_plain(requests);
  }
}

// A page that was judged, and comes again changed but with its tag: a flag that offers the hash of
// the first one for the second passes nothing.
TEST_F(Chain, AFlippedFlagDoesNotJudgeAPageByItsOlderHash) {
  make(2, 3);
  const auto honest = sealed_;
  for (int at = 0; at < 100; at += 7) {
    SCOPED_TRACE("flag flipped in cycle " + std::to_string(at));
    sealed_ = honest;
    flush();
    run({{0, 3, 0}});
    expect_plain({{0, 3, 0}});
    sealed_[20] ^= 1;
    out_.clear();
    top_.req_valid_i = 1;
    top_.req_page_i = top_.req_index_i = 0;
    do tick();
    while (!accepted_);
    top_.req_valid_i = 0;
    for (int i = 0; i < at; ++i) tick();
    top_.rootp->lk_lock_chain__DOT__gen_locked__DOT__u_gcm__DOT__u_engine__DOT__hash_wait_q = 1;
    for (int i = 0; i < 300; ++i) tick();
    EXPECT_TRUE(top_.fail_o);
    EXPECT_TRUE(out_.empty());
  }
}

// The next run may be of another package at the same place: its tags are fetched, not remembered.
TEST_F(Chain, TagsOfTheRunBeforeAreForgotten) {
  for (int package = 0; package < 3; ++package) {
    make(3, 3);
    top_.forget_i = 1;
    tick();
    top_.forget_i = 0;
    run(sweep(0, 3, 1));
    EXPECT_FALSE(top_.fail_o);
    expect_plain(sweep(0, 3, 1));
  }
}

TEST_F(Chain, BusErrorIsReported) {
  make(8, 3);
  error_page_ = 5;
  run(sweep(0, 8, 1));
  EXPECT_GT(bus_errors_, 0u);
}

}  // namespace
}  // namespace latchkey::lock_chain
