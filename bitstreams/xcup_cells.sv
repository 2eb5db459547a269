// The cells of the device that the RTL instantiates by name, as black boxes for the front end of
// bitstreams/synth.py. No tool that knows the device needs this file.
(* blackbox *)
module LUT6 #(
  parameter logic [63:0] INIT = 64'd0
) (
  output logic O,
  input  logic I0, I1, I2, I3, I4, I5
);
endmodule

(* blackbox *)
module FDCE #(
  parameter logic INIT = 1'b0
) (
  output logic Q,
  input  logic C, CE, CLR, D
);
endmodule

(* blackbox *)
module LUT1 #(
  parameter logic [1:0] INIT = 2'd0
) (
  output logic O,
  input  logic I0
);
endmodule

(* blackbox *)
module LUT2 #(
  parameter logic [3:0] INIT = 4'd0
) (
  output logic O,
  input  logic I0, I1
);
endmodule
