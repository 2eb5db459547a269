# latchkey_xclbin(<name> MODEL <target of latchkey_card_model> KERNELS <json>)
#
# Builds <build>/images/<name>.xclbin and a target <name>_xclbin for it. The JSON is described in
# bitstreams/README.md. The file's path is in the variable <name>_XCLBIN of the caller.
function(latchkey_xclbin name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "MODEL;KERNELS" "")
  cmake_path(ABSOLUTE_PATH ARG_KERNELS BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  set(output "${CMAKE_BINARY_DIR}/images/${name}.xclbin")
  file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/images")
  add_custom_command(OUTPUT "${output}"
    COMMAND latchkey_xclbin --kernels "${ARG_KERNELS}" --model "$<TARGET_FILE:${ARG_MODEL}>"
      --output "${output}"
    DEPENDS latchkey_xclbin ${ARG_MODEL} "${ARG_KERNELS}"
    VERBATIM)
  add_custom_target(${name}_xclbin ALL DEPENDS "${output}")
  set(${name}_XCLBIN "${output}" PARENT_SCOPE)
endfunction()
