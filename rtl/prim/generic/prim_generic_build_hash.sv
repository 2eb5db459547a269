// Simulation twin of the build's revision: a constant of the card image, behind DPI. Interface:
// prim_build_hash.
module prim_generic_build_hash #(
  parameter logic [31:0] BuildHash = 32'd0
) (
  output logic [31:0] hash_o
);
  // The image knows; the parameter is for the fabric.
  logic unused;
  assign unused = ^BuildHash;

`ifdef SYNTHESIS
  $fatal(1, "%m: the simulated build's revision must not be synthesised");
  assign hash_o = '0;
`else
  import "DPI-C" function int unsigned latchkey_build_hash();
  initial hash_o = latchkey_build_hash();
`endif
endmodule
