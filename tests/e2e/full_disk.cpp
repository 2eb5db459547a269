// Preloaded into a child: write() to files whose name begins with FULL_DISK_PREFIX fails with
// ENOSPC once FULL_DISK_BYTES are written, as on a full disk. The last write before that is cut
// short.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

bool on_full_disk(int fd) {
  const char* const prefix = std::getenv("FULL_DISK_PREFIX");
  if (!prefix) return false;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  char target[4096];
  const ssize_t n = ::readlink(link.c_str(), target, sizeof target);
  const std::size_t length = std::strlen(prefix);
  return n > 0 && static_cast<std::size_t>(n) >= length && std::memcmp(target, prefix, length) == 0;
}

}  // namespace

extern "C" ssize_t write(int fd, const void* data, size_t size) {
  using function = ssize_t (*)(int, const void*, size_t);
  static const auto real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "write"));
  static std::size_t room = [] {
    const char* const bytes = std::getenv("FULL_DISK_BYTES");
    return bytes ? std::strtoul(bytes, nullptr, 10) : 0;
  }();
  if (on_full_disk(fd)) {
    size = std::min(size, room);
    if (size == 0) {
      errno = ENOSPC;
      return -1;
    }
    room -= size;
  }
  return real(fd, data, size);
}
