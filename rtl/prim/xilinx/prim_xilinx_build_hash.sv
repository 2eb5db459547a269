// The build's revision on the fabric: the parameter, set by whoever starts synthesis. Interface:
// prim_build_hash.
module prim_xilinx_build_hash #(
  parameter logic [31:0] BuildHash = 32'd0
) (
  output logic [31:0] hash_o
);
  assign hash_o = BuildHash;
endmodule
