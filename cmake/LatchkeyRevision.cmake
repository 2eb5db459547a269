# cmake -DSOURCE=<folder> -DOUTPUT=<cpp file> -P LatchkeyRevision.cmake
#
# Writes what BUILD_HASH of the simulated card images reads: the first 32 bits of the commit that is
# checked out in SOURCE. Zero when that is unknown: no git, no repository, or files that differ from
# the commit. The file is only touched when the value changes.
set(hash 0)
find_program(git git)
if(git)
  execute_process(COMMAND "${git}" -C "${SOURCE}" rev-parse --verify HEAD
    OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE none ERROR_QUIET)
  # Unlike diff-index, status looks into files whose time alone has changed.
  execute_process(COMMAND "${git}" -C "${SOURCE}" --no-optional-locks
      status --porcelain --untracked-files=no
    OUTPUT_VARIABLE changed RESULT_VARIABLE unknown ERROR_QUIET)
  if(none EQUAL 0 AND unknown EQUAL 0 AND changed STREQUAL "" AND head MATCHES "^[0-9a-f]+$")
    string(SUBSTRING "${head}" 0 8 hash)
  endif()
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT [[
// Written by cmake/LatchkeyRevision.cmake.
#include "latchkey/sim/revision.h"

extern "C" unsigned int latchkey_build_hash() { return 0x@hash@u; }
]])
