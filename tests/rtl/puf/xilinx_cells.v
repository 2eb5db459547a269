// Port lists of the vendor's cells, for elaboration only. Delays, the whole point of them, are not
// modelled, so nothing is simulated with these.
/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSED */
module LUT1 #(parameter [1:0] INIT = 0) (output O, input I0);
  assign O = INIT[I0];
endmodule
module LUT2 #(parameter [3:0] INIT = 0) (output O, input I0, input I1);
  assign O = INIT[{I1, I0}];
endmodule
module LUT6 #(parameter [63:0] INIT = 0) (
  output O, input I0, input I1, input I2, input I3, input I4, input I5
);
  assign O = INIT[{I5, I4, I3, I2, I1, I0}];
endmodule
module FDCE #(parameter [0:0] INIT = 0) (output reg Q, input C, input CE, input CLR, input D);
  always @(posedge C or posedge CLR) begin
    if (CLR) Q <= 1'b0;
    else if (CE) Q <= D;
  end
endmodule
