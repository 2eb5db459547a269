#include "latchkey/sim/platform.h"

#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

// libsystemc has a main() of its own that calls this; the platform never does.
int sc_main(int, char**) { return 0; }

namespace latchkey::sim {

std::atomic<bool> Platform::waiting_{false};

Platform& Platform::instance() {
  // Never destroyed: XRT's own static objects call into the driver after our destructors would run.
  static Platform* const platform = [] {
    auto* p = new Platform;
    std::atexit([] { instance().stop(); });
    return p;
  }();
  return *platform;
}

Platform::Platform() : configs_(cards_from_environment()) {
  setenv("SYSTEMC_DISABLE_COPYRIGHT_MESSAGE", "1", 1);
  std::promise<void> ready;
  thread_ = std::thread([this, &ready] { thread(&ready); });
  try {
    ready.get_future().get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

void Platform::thread(std::promise<void>* ready) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  try {
    sc_core::sc_set_time_resolution(1, sc_core::SC_PS);
    // An idle platform is the normal case.
    sc_core::sc_report_handler::set_actions(sc_core::SC_ID_NO_SC_START_ACTIVITY_,
                                            sc_core::SC_DO_NOTHING);
    for (std::size_t i = 0; i < configs_.size(); ++i) {
      cards_.push_back(std::make_unique<Card>(("card_" + std::to_string(i)).c_str(), configs_[i]));
    }
    sc_core::sc_start(sc_core::SC_ZERO_TIME);
    ready->set_value();
  } catch (...) {
    ready->set_exception(std::current_exception());
    return;
  }

  const auto any_runs = [this] {
    for (const auto& card : cards_) {
      if (card->has_runs()) return true;
    }
    return false;
  };
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto ready_to_go = [this] { return stopping_ || !calls_.empty(); };
    if (!any_runs()) {
      wake_.wait(lock, ready_to_go);
    } else if (!wake_.wait_for(lock, stall_limit, ready_to_go)) {
      for (const auto& card : cards_) {
        if (card->has_runs()) {
          card->fail("kernels wait for each other, or for one that was not started",
                     RunEnd::timed_out);
        }
      }
    }
    std::deque<std::function<void()>> calls;
    calls.swap(calls_);
    waiting_ = false;
    const bool stop = stopping_;
    lock.unlock();
    for (const auto& f : calls) f();
    if (stop) break;
    try {
      sc_core::sc_start();  // until nothing is left to do or a host call waits
    } catch (const std::exception& e) {
      for (const auto& card : cards_) {
        card->fail(std::string("the simulation stopped: ") + e.what(), RunEnd::failed);
      }
    }
    lock.lock();
  }
  for (const auto& card : cards_) card->power_off();
  lock.lock();
  stopped_ = true;
  for (const auto& f : calls_) f();
  calls_.clear();
}

void Platform::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    waiting_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Platform::call(const std::function<void()>& f) {
  std::promise<void> promise;
  std::future<void> done = promise.get_future();
  {
    std::unique_lock lock(mutex_);
    if (stopped_) {
      f();
      return;
    }
    calls_.emplace_back([&] {
      try {
        f();
        promise.set_value();
      } catch (...) {
        promise.set_exception(std::current_exception());
      }
    });
    waiting_ = true;
  }
  wake_.notify_all();
  done.get();
}

}  // namespace latchkey::sim
