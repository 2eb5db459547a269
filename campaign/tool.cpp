#include "tool.hpp"

#include <fmt/format.h>

#include "latchkey/error.hpp"

namespace latchkey::campaign {

output::output(const std::string& path) : path_(path) {
  if (path_.empty()) return;
  file_.open(path_, std::ios::binary | std::ios::app);
  if (!file_) throw error(errc::io, path_ + ": cannot be written; check folder and permissions");
  file_.close();
}

void output::write(const std::string& text) {
  if (path_.empty()) return;
  file_.open(path_, std::ios::binary | std::ios::trunc);
  file_ << text << std::flush;
  if (!file_) throw error(errc::io, path_ + ": writing failed; is the disk full?");
  fmt::print(stderr, "wrote {}\n", path_);
}

int fail(const std::string& tool, int code, const std::string& what) {
  fmt::print(stderr, "{}: error: {}\n", tool, what);
  return code;
}

}  // namespace latchkey::campaign
