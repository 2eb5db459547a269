// Cuts a transfer of 64-byte beats into AXI4 bursts that never cross a 4 KiB boundary and have at
// most MaxBeats beats.
//
// A request is a byte address (bits 5:0 are ignored: beats are aligned) and a number of beats; zero
// beats give no burst. Bursts leave in address order, the first one in the cycle after the request,
// and burst_last_o marks the last of a request. The next request is taken with the last burst, so
// back-to-back requests leave no gap. burst_len_o is AXI's AxLEN, beats minus one.
// Limits: MaxBeats is a power of two from 1 to 64 (64 beats of 64 bytes are one 4 KiB page);
// BeatsWidth bounds the request's size.
module lk_axi_burst_splitter #(
  parameter int unsigned BeatsWidth = 27,
  parameter int unsigned MaxBeats   = 64
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  req_valid_i,
  output logic                  req_ready_o,
  input  logic [63:0]           req_addr_i,
  input  logic [BeatsWidth-1:0] req_beats_i,
  output logic                  burst_valid_o,
  input  logic                  burst_ready_i,
  output logic [63:0]           burst_addr_o,
  output logic [7:0]            burst_len_o,
  output logic                  burst_last_o
);
  localparam int unsigned ChunkBits = $clog2(MaxBeats);
  localparam int unsigned CountW    = ChunkBits + 1;

  if (MaxBeats < 1 || MaxBeats > 64 || (MaxBeats & (MaxBeats - 1)) != 0) begin : gen_bad_max
    $fatal(1, "%m: MaxBeats must be a power of two from 1 to 64, got %0d", MaxBeats);
  end
  if (BeatsWidth < 7 || BeatsWidth > 58) begin : gen_bad_width
    $fatal(1, "%m: BeatsWidth must be from 7 to 58, got %0d", BeatsWidth);
  end

  logic [57:0]           beat_addr_q;  // address in beats
  logic [BeatsWidth-1:0] left_q;
  logic [CountW-1:0]     room, count;  // beats up to the next multiple of MaxBeats; of this burst

  if (MaxBeats == 1) begin : gen_single
    assign room = 1'b1;
  end else begin : gen_room
    assign room = CountW'(MaxBeats) - {1'b0, beat_addr_q[ChunkBits-1:0]};
  end

  assign burst_last_o  = left_q <= BeatsWidth'(room);
  assign count         = burst_last_o ? left_q[CountW-1:0] : room;
  assign burst_valid_o = left_q != '0;
  assign burst_addr_o  = {beat_addr_q, 6'b0};
  assign burst_len_o   = 8'(count) - 8'd1;
  assign req_ready_o   = !burst_valid_o || (burst_last_o && burst_ready_i);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      left_q      <= '0;
      beat_addr_q <= '0;
    end else if (req_valid_i && req_ready_o) begin
      left_q      <= req_beats_i;
      beat_addr_q <= req_addr_i[63:6];
    end else if (burst_valid_o && burst_ready_i) begin
      left_q      <= left_q - BeatsWidth'(count);
      beat_addr_q <= beat_addr_q + 58'(count);
    end
  end

`ifdef VERILATOR
  // A burst stays within its 4 KiB page.
  assert property (@(posedge clk_i) disable iff (!rst_ni)
    burst_valid_o |-> 9'(burst_addr_o[11:6]) + 9'(burst_len_o) < 9'd64);
`endif

  logic unused;
  assign unused = ^req_addr_i[5:0];
endmodule
