// Simulation twin of the noise source: a word of the modelled die, one cycle after the request.
// Interface: prim_trng.
module prim_generic_trng (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        req_i,
  output logic        valid_o,
  output logic [31:0] data_o
);
`ifdef SYNTHESIS
  $fatal(1, "%m: the modelled noise source must not be synthesised");
  assign valid_o = 1'b0;
  assign data_o  = '0;
  logic unused;
  assign unused = &{clk_i, rst_ni, req_i};
`else
  import "DPI-C" function int latchkey_trng_word();

  // A held request is answered every second cycle, so valid_o is always one pulse per word.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      data_o  <= '0;
    end else if (valid_o) begin
      valid_o <= 1'b0;
      data_o  <= '0;
    end else if (req_i) begin
      valid_o <= 1'b1;
      data_o  <= 32'(latchkey_trng_word());
    end
  end
`endif
endmodule
