# latchkey_verilate(<target> TOP <module> [PREFIX <class>] [PARAMS -GName=value ...]
#                   [SOURCES <file> ...] [DEFINES <macro> ...] [ARGS <verilator argument> ...])
#
# Verilates one top with one parameter set into the static library <target>. Modules are found by
# their file name in the rooms of rtl/ and beside the listed SOURCES, so a caller lists only its own
# test benches; packages come first, in the order of their dependencies.
find_package(verilator REQUIRED HINTS /usr/share/verilator)

set(LATCHKEY_RTL_DIR "${CMAKE_SOURCE_DIR}/rtl")
set(LATCHKEY_RTL_ROOMS
  common prim prim/generic prim/xilinx axi puf key lock matmul activation control)
# Every package, dependencies first.
set(LATCHKEY_RTL_PACKAGES)
foreach(pkg IN ITEMS lk_pkg)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS "${LATCHKEY_RTL_DIR}/${pkg}.sv")
  list(APPEND LATCHKEY_RTL_PACKAGES ${found})
endforeach()
file(GLOB_RECURSE found CONFIGURE_DEPENDS "${LATCHKEY_RTL_DIR}/*_pkg.sv")
list(APPEND LATCHKEY_RTL_PACKAGES ${found})
list(REMOVE_DUPLICATES LATCHKEY_RTL_PACKAGES)

function(latchkey_verilate target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "TOP;PREFIX" "PARAMS;SOURCES;DEFINES;ARGS")
  if(NOT ARG_PREFIX)
    set(ARG_PREFIX V${ARG_TOP})
  endif()
  set(search)
  foreach(room IN LISTS LATCHKEY_RTL_ROOMS)
    list(APPEND search -y "${LATCHKEY_RTL_DIR}/${room}")
  endforeach()
  list(APPEND search -y "${LATCHKEY_RTL_DIR}" -y "${CMAKE_CURRENT_SOURCE_DIR}")
  set(defines)
  foreach(d IN LISTS ARG_DEFINES)
    list(APPEND defines "-D${d}")
  endforeach()
  set(sources ${LATCHKEY_RTL_PACKAGES} ${ARG_SOURCES})
  find_file(top_file "${ARG_TOP}.sv" NO_CACHE NO_DEFAULT_PATH
    PATHS "${CMAKE_CURRENT_SOURCE_DIR}" "${LATCHKEY_RTL_DIR}"
    PATH_SUFFIXES ${LATCHKEY_RTL_ROOMS})
  if(top_file)
    list(APPEND sources "${top_file}")
  endif()
  list(REMOVE_DUPLICATES sources)

  add_library(${target} STATIC)
  set(trace)
  if(LATCHKEY_TRACE)
    set(trace TRACE_FST)
    list(APPEND defines -DLATCHKEY_TRACE)
  endif()
  verilate(${target} ${trace}
    SOURCES ${sources}
    TOP_MODULE ${ARG_TOP}
    PREFIX ${ARG_PREFIX}
    VERILATOR_ARGS --assert -Wall -Wno-fatal --unroll-count 1000 --unroll-stmts 100000000
      --output-split 5000 --x-initial unique -O3 ${search} ${defines} ${ARG_PARAMS} ${ARG_ARGS})
  # v3 and not native: the build may run on another machine than the one that made it.
  target_compile_options(${target} PRIVATE -O2 -march=x86-64-v3 -w)
  target_compile_features(${target} PRIVATE cxx_std_17)
  # Most of the time for a generated file goes into the model's headers: several at a time, but none
  # of Verilator's own library, which is not made for it.
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  get_target_property(files ${target} SOURCES)
  list(FILTER files INCLUDE REGEX "/include/verilated[^/]*\\.cpp$")
  set_source_files_properties(${files} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# latchkey_test(<target> SOURCES <file> ... [LIBRARIES <target> ...] [LABELS <label> ...])
# A GoogleTest program whose every TEST is a ctest case.
find_package(GTest REQUIRED)
function(latchkey_test target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "TIMEOUT" "SOURCES;LIBRARIES;LABELS")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${target} ${ARG_SOURCES})
  target_include_directories(${target} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(${target} PRIVATE ${ARG_LIBRARIES} GTest::gtest GTest::gmock GTest::gtest_main)
  target_link_options(${target} PRIVATE -latomic)
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
