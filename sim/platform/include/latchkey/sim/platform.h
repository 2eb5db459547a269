// The simulation of a process: its cards and the one thread that owns SystemC.
#ifndef LATCHKEY_SIM_PLATFORM_H_
#define LATCHKEY_SIM_PLATFORM_H_

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "latchkey/sim/card.h"

namespace latchkey::sim {

// All cards are elaborated at first use, from LATCHKEY_SIM_CARDS. The SystemC time stands still
// while no kernel has work, so that results and cycle counts do not depend on how fast the host is.
class Platform {
 public:
  // Starts the platform. Throws std::invalid_argument for a bad LATCHKEY_SIM_CARDS.
  static Platform& instance();

  std::size_t card_count() const { return cards_.size(); }
  Card& card(std::size_t index) { return *cards_.at(index); }

  // Runs f on the platform's thread between two slices of simulation, waits, and passes on what it
  // throws. After the process began to exit f runs on the calling thread.
  void call(const std::function<void()>& f);

  // Polled by the compute units: a host call waits.
  static bool host_waiting() { return waiting_.load(std::memory_order_relaxed); }

 private:
  Platform();
  void thread(std::promise<void>* ready);
  void stop();

  // Wall-clock time that runs may wait with no unit able to move (a kernel waits for a stream whose
  // other end was never started) before they are ended as timed out.
  static constexpr std::chrono::seconds stall_limit{10};

  std::vector<CardConfig> configs_;
  std::vector<std::unique_ptr<Card>> cards_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> calls_;
  static std::atomic<bool> waiting_;
  bool stopping_ = false;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_PLATFORM_H_
