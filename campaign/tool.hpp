// What the campaigns' tools share beside their pages (document.hpp).
#pragma once

#include <fstream>
#include <string>

namespace latchkey::campaign {

/// An output file, opened before the campaign runs: an hour's work must not end at a typo. An empty
/// path writes nothing. Throws latchkey::error (io) naming the file.
class output {
 public:
  explicit output(const std::string& path);
  void write(const std::string& text);

 private:
  std::string path_;
  std::ofstream file_;
};

/// Says what failed and returns `code`, for main().
int fail(const std::string& tool, int code, const std::string& what);

}  // namespace latchkey::campaign
