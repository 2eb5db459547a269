# Compiler choices shared by every target.
#
# Verilated code runs 4x faster from clang than from gcc in the style our arrays are written in, so
# clang builds everything and there is one compiler to reason about.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
# -g1 keeps backtraces and leaves the link short.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(LATCHKEY_CCACHE ccache)
if(LATCHKEY_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${LATCHKEY_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${LATCHKEY_CCACHE})
endif()

option(LATCHKEY_TRACE "Compile FST waveform support into the simulated chip (exposes its secrets)" OFF)

# Warnings for our own code; Verilator's output and third-party headers do not see them.
add_library(latchkey_warnings INTERFACE)
target_compile_options(latchkey_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  -Wno-sign-conversion)
