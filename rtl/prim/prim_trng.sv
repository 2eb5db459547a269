// Random words from physical noise.
//
// req_i asks for one word; it is held or pulsed, and answered by one pulse of valid_o with 32 fresh
// bits in data_o. A request made while one is pending is the same request. How long a word takes
// depends on the noise source; a source that has stopped moving never answers, so the caller needs
// a time-out. data_o is zero without valid_o.
//
// Simulation uses prim_generic_trng (the modelled die behind DPI, one cycle); synthesis, or
// LATCHKEY_TARGET_XILINX, uses prim_xilinx_trng.
module prim_trng (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        req_i,
  output logic        valid_o,
  output logic [31:0] data_o
);
`ifdef SYNTHESIS
  `define LK_TRNG_IMPL prim_xilinx_trng
`elsif LATCHKEY_TARGET_XILINX
  `define LK_TRNG_IMPL prim_xilinx_trng
`else
  `define LK_TRNG_IMPL prim_generic_trng
`endif
  `LK_TRNG_IMPL u_impl (
    .clk_i,
    .rst_ni,
    .req_i,
    .valid_o,
    .data_o
  );
`undef LK_TRNG_IMPL
endmodule
