// When each operation of a run ended. Entry 0 is the cycle in which the descriptors stood, entry i
// + 1 the cycle in which the operation of descriptor i ended, both as the low 32 bits of the
// counter Cycles; a difference of two entries is exact below 2^32 cycles. Entries of operations
// that have not ended in this run read as 0.
//
// The times leak nothing: no operation's time depends on the value of a weight, an activation or a
// key. Shapes and memory decide it, and both show on the memory bus already. So a wipe leaves them.
//
// raddr_i is held for two cycles; rdata_o follows it by one.
module lk_layer_times #(
  localparam int unsigned Entries = lk_pkg::MaxDescs,
  localparam int unsigned Aw      = $clog2(Entries)
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          clear_i,     // a run starts
  input  logic          running_i,
  input  logic          loaded_i,    // pulse: the descriptors stand
  input  logic          ended_i,     // pulse: an operation has ended
  input  logic [Aw-1:0] raddr_i,     // entry
  output logic [31:0]   rdata_o
);
  logic [31:0]   mem [Entries];
  logic [31:0]   cycle_q, ram_q;
  logic [Aw:0]   count_q;            // entries of this run
  logic          put, there_q;

  // End has no entry of its own, so the last entry is written at most once.
  assign put = running_i && (loaded_i || ended_i) && !count_q[Aw];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cycle_q <= '0;
      count_q <= '0;
      there_q <= 1'b0;
    end else begin
      there_q <= {1'b0, raddr_i} < count_q;
      if (clear_i) begin
        cycle_q <= '0;
        count_q <= '0;
      end else begin
        if (running_i) cycle_q <= cycle_q + 1'b1;
        if (put) count_q <= count_q + 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (put) mem[count_q[Aw-1:0]] <= cycle_q;
    ram_q <= mem[raddr_i];
  end

  assign rdata_o = there_q ? ram_q : '0;
endmodule
