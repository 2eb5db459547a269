// First 32 bits of the source revision, constant; 0 when unknown.
//
// Simulation uses prim_generic_build_hash, which asks the card image it is linked into: the model
// need not be verilated again for every revision. Synthesis, or LATCHKEY_TARGET_XILINX, uses
// prim_xilinx_build_hash, which is the parameter.
module prim_build_hash #(
  parameter logic [31:0] BuildHash = 32'd0
) (
  output logic [31:0] hash_o
);
`ifdef SYNTHESIS
  `define LK_BUILD_HASH_IMPL prim_xilinx_build_hash
`elsif LATCHKEY_TARGET_XILINX
  `define LK_BUILD_HASH_IMPL prim_xilinx_build_hash
`else
  `define LK_BUILD_HASH_IMPL prim_generic_build_hash
`endif
  `LK_BUILD_HASH_IMPL #(.BuildHash(BuildHash)) u_impl (.hash_o);
`undef LK_BUILD_HASH_IMPL
endmodule
