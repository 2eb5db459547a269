// Preloaded into a child: kills it, as a power cut would, before the POWER_CUT_AT-th operation on
// files whose name begins with POWER_CUT_PREFIX. Operations are open for writing, write, fsync and
// rename; a write is cut in the middle: half of it is done. With POWER_CUT_AT absent nothing
// happens.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

template <typename F>
F real(const char* name) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

bool ours(const char* path) {
  const char* const prefix = std::getenv("POWER_CUT_PREFIX");
  return prefix && path && std::strncmp(path, prefix, std::strlen(prefix)) == 0;
}

bool ours(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  char target[4096];
  const ssize_t n = ::readlink(link.c_str(), target, sizeof target - 1);
  if (n <= 0) return false;
  target[n] = 0;
  return ours(target);
}

/// Whether this operation is the one; counts it.
bool last() {
  static const char* const at = std::getenv("POWER_CUT_AT");
  static long count = 0;
  return at && ++count == std::strtol(at, nullptr, 10);
}

void cut() {
  ::raise(SIGKILL);
  ::_exit(99);
}

int opened(const char* name, const char* path, int flags, mode_t mode) {
  using function = int (*)(const char*, int, ...);
  if ((flags & O_ACCMODE) != O_RDONLY && ours(path) && last()) cut();
  return real<function>(name)(path, flags, mode);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return opened("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return opened("open64", path, flags, mode);
}

ssize_t write(int fd, const void* data, size_t size) {
  using function = ssize_t (*)(int, const void*, size_t);
  static const auto next = real<function>("write");
  if (ours(fd) && last()) {
    next(fd, data, size / 2);
    cut();
  }
  return next(fd, data, size);
}

int fsync(int fd) {
  using function = int (*)(int);
  static const auto next = real<function>("fsync");
  if (ours(fd) && last()) cut();
  return next(fd);
}

int rename(const char* from, const char* to) noexcept {
  using function = int (*)(const char*, const char*);
  static const auto next = real<function>("rename");
  if (ours(to) && last()) cut();
  return next(from, to);
}

}  // extern "C"
