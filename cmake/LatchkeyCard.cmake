# latchkey_card_model(<target>
#                     [RTL <kernel name> TOP <module> [PREFIX <class>] [PARAMS -GName=value ...]
#                      [SOURCES <sv file> ...] [DEFINES <macro> ...] [ARGS <verilator argument> ...]]
#                     [HLS <cpp file> ...] [LIBRARIES <target> ...])
#
# Builds the simulation model of a card image: the shared library that goes into an xclbin. It holds
# one Verilated RTL kernel and any number of HLS kernels (each registered by LATCHKEY_HLS_KERNEL in
# one of the files). The kernel's name is what IP_LAYOUT says before the colon. The target's
# file is found with $<TARGET_FILE:...>, and <target>_verilated is the model itself, for unit tests.
function(latchkey_card_model target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "RTL;TOP;PREFIX" "PARAMS;SOURCES;DEFINES;ARGS;HLS;LIBRARIES")
  set(cpp ${ARG_HLS})
  if(ARG_RTL)
    if(NOT ARG_TOP)
      set(ARG_TOP ${ARG_RTL})
    endif()
    if(NOT ARG_PREFIX)
      set(ARG_PREFIX V${ARG_TOP}_${target})
    endif()
    latchkey_verilate(${target}_verilated TOP ${ARG_TOP} PREFIX ${ARG_PREFIX}
      PARAMS ${ARG_PARAMS} SOURCES ${ARG_SOURCES} DEFINES ${ARG_DEFINES} ARGS ${ARG_ARGS})
    string(REPLACE "-G" "" parameters "${ARG_PARAMS}")
    string(REPLACE ";" " " parameters "${parameters}")
    string(REPLACE "\"" "\\\"" parameters "${parameters}")
    set(glue "${CMAKE_CURRENT_BINARY_DIR}/${target}_kernel.cpp")
    file(CONFIGURE OUTPUT "${glue}" @ONLY CONTENT [[
#include "@ARG_PREFIX@.h"
#include "latchkey/sim/rtl_kernel.h"

LATCHKEY_RTL_KERNEL(@ARG_PREFIX@, "@ARG_RTL@", "@parameters@")
]])
    list(APPEND cpp "${glue}")
  endif()
  add_library(${target} MODULE ${cpp})
  target_link_libraries(${target} PRIVATE latchkey_image latchkey_silicon_dpi ${ARG_LIBRARIES})
  if(LATCHKEY_TRACE)
    # verilate() tells only its own target; the kernel's glue must know too, and FST files need zlib.
    target_compile_definitions(${target} PRIVATE VM_TRACE=1 VM_TRACE_FST=1)
    target_link_libraries(${target} PRIVATE z)
  endif()
  if(ARG_RTL)
    target_link_libraries(${target} PRIVATE ${target}_verilated)
  endif()
  set_target_properties(${target} PROPERTIES CXX_STANDARD 17 CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON PREFIX "")
  target_compile_options(${target} PRIVATE -O2 -march=x86-64-v3)
  # Two images in one process must not share symbols, and nothing may be left to resolve.
  set(map "${CMAKE_SOURCE_DIR}/sim/platform/image/image.map")
  target_link_options(${target} PRIVATE -Wl,-Bsymbolic -Wl,-z,defs -Wl,-u,latchkey_image
    "-Wl,--version-script=${map}")
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${map}")
  target_link_libraries(${target} PRIVATE -latomic)
endfunction()

# latchkey_card_tests(<target> CARDS <text> [TIMEOUT <s>] [LABELS <label> ...])
#
# ctest cases of a GoogleTest program that uses simulated cards through XRT; CARDS is the text of
# LATCHKEY_SIM_CARDS with every ';' escaped as '\;'. Each test case gets a state folder of its own.
function(latchkey_card_tests target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "CARDS;TIMEOUT" "LABELS")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  # A wrapper, because ctest's ENVIRONMENT property splits at every ';'.
  set(wrapper "${CMAKE_CURRENT_BINARY_DIR}/${target}.sh")
  string(REPLACE "\\;" ";" cards "${ARG_CARDS}")
  file(CONFIGURE OUTPUT "${wrapper}" @ONLY CONTENT [[
#!/bin/sh
# Runs a program with simulated cards and a fresh state folder.
state=$(mktemp -d) || exit 1
trap 'rm -rf "$state"' EXIT
export LATCHKEY_STATE_DIR="$state" LATCHKEY_SIM_CARDS='@cards@'
export XCL_EMULATION_MODE=hw_emu XILINX_XRT='@CMAKE_BINARY_DIR@/xrt'
"$@"
]])
  file(CHMOD "${wrapper}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ
    GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  set_target_properties(${target} PROPERTIES CROSSCOMPILING_EMULATOR "${wrapper}")
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
