// Stand-in for Vitis HLS's hls_stream.h: an unbounded queue for C simulation. The simulated card
// replaces it by a stream of its own with the same two calls.
#pragma once
#include <queue>
#include <stdexcept>

namespace hls {
template <class T>
class stream {
 public:
  void write(const T& value) { queue_.push(value); }
  T read() {
    if (queue_.empty()) throw std::runtime_error("hls::stream: read from an empty stream");
    T value = queue_.front();
    queue_.pop();
    return value;
  }
  bool empty() const { return queue_.empty(); }
  std::size_t size() const { return queue_.size(); }

 private:
  std::queue<T> queue_;
};
}  // namespace hls
