// Two tables of 256 bytes with 64 lookups a cycle: byte i of y_o[t] is the entry of byte i of x_i
// in table t, in the same cycle; y_o is 0 while valid_i is low, y_o[1] also while wide_i is low.
//
// start_i (pulse) asks for the tables' page on pg_*; entry e of table t is byte 256 * t + e of the
// page, what follows is taken and dropped, the second table too while wide_i is low. A table is
// written 4 bytes a cycle, so each of its four beats stays 16 cycles: 124 cycles a page, 184 with
// wide_i. done_o is high with the last beat.
//
// A table is meant to become distributed RAM of 64 x 32 bit, repeated until there is a read port
// per byte of a word: the scratchpad gives a word a cycle and lookups keep up with it. yosys
// (synth_xilinx -family xcup) makes 320 RAM64M8 and 1,249 LUTs of each. wipe_i zeroes both and must
// stay for 64 cycles.
module lk_table (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,
  input  logic         wipe_i,
  input  logic         wide_i,
  input  logic         start_i,
  output logic         done_o,
  input  logic         pg_valid_i,
  output logic         pg_ready_o,
  input  logic [511:0] pg_data_i,
  input  logic         valid_i,
  input  logic [511:0] x_i,
  output logic [1:0][511:0] y_o
);
  localparam int unsigned Beats = 256 / lk_pkg::BeatBytes;  // of a table

  logic       load_q;
  logic [5:0] beat_q;  // of the page
  logic [3:0] part_q;  // of the beat: 4 bytes each
  logic       head, take, we;

  assign head       = beat_q < 6'(wide_i ? 2 * Beats : Beats);
  assign we         = load_q && pg_valid_i && head;
  assign pg_ready_o = load_q && (!head || part_q == 4'd15);
  assign take       = pg_valid_i && pg_ready_o;
  assign done_o     = take && beat_q == 6'(lk_pkg::PageBeats - 1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      load_q <= 1'b0;
      beat_q <= '0;
      part_q <= '0;
    end else if (clear_i || wipe_i) begin
      load_q <= 1'b0;
    end else if (start_i) begin
      load_q <= 1'b1;
      beat_q <= '0;
      part_q <= '0;
    end else begin
      if (we) part_q <= part_q + 1'b1;
      if (take) beat_q <= beat_q + 1'b1;
      if (done_o) load_q <= 1'b0;
    end
  end

  // SEC_CM: TABLE.WIPE
  logic [5:0] walk_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) walk_q <= '0;
    else if (wipe_i) walk_q <= walk_q + 1'b1;
    else walk_q <= '0;
  end

  for (genvar t = 0; t < 2; t++) begin : gen_table
    (* ram_style = "distributed" *) logic [31:0] mem [64];
    always_ff @(posedge clk_i) begin
      if (wipe_i) mem[walk_q] <= '0;
      else if (we && beat_q[2] == 1'(t)) begin
        mem[{beat_q[1:0], part_q}] <= pg_data_i[{part_q, 5'd0} +: 32];
      end
    end

    always_comb begin
      y_o[t] = '0;
      if (valid_i && (t == 0 || wide_i)) begin
        for (int unsigned i = 0; i < 64; i++) begin
          y_o[t][8*i +: 8] = mem[x_i[8*i+2 +: 6]][{x_i[8*i +: 2], 3'd0} +: 8];
        end
      end
    end
  end
endmodule
