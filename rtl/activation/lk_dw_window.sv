// Line buffers and window of the depthwise path: pixels of one channel block (64 bytes each) come
// in raster order, Taps of them leave for the multipliers.
//
// step_i shifts the window by one column: its newest pixel is px_i, the pixels above it come from
// the Side - 1 line buffers, which are one RAM used as a delay line. Its column is addressed by the
// caller, who counts it modulo the length of a line: re_i with raddr_i two cycles before the step,
// waddr_i = the same column with it. A column may be read again three cycles after its step was.
//
// sel_i in a later cycle picks the taps lk_dw_pkg::ring numbers chunk_i * Taps .. + Taps - 1, which
// stand in d_o one cycle after: the pixel if row_ok_i and col_ok_i say that it lies in the input,
// else pad_i; 0 if the kernel has no such tap. With stream_i low there is no window: the newest
// pixel alone goes to multiplier slot_i.
//
// With pairs_i a word is two neighbouring pixels of 32 channels, and so is a result: the taps left
// and right of the middle come from the other half of a word, for one of the pixels from the next
// word. Then the kernel is 3 wide and at most 3 high.
//
// wipe_i clears the window and d_o, and the line buffers at wipe_addr_i, which the caller walks.
// Limits: kernels up to Side x Side, lines of 4 to Line pixels.
module lk_dw_window #(
  parameter int unsigned Side = 5,
  parameter int unsigned Taps = 9,
  parameter int unsigned Line = 512,
  localparam int unsigned Lw  = $clog2(Line)
) (
  input  logic                   clk_i,
  input  logic                   wipe_i,
  input  logic [Lw-1:0]          wipe_addr_i,
  input  logic                   stream_i,
  input  logic                   pairs_i,
  input  logic [7:0]             kernel_h_i,
  input  logic [7:0]             kernel_w_i,
  input  logic [7:0]             pad_i,
  input  logic                   re_i,
  input  logic [Lw-1:0]          raddr_i,
  input  logic                   step_i,
  input  logic [Lw-1:0]          waddr_i,
  input  logic [511:0]           px_i,
  input  logic                   sel_i,
  input  logic [5:0]             chunk_i,
  input  logic [5:0]             slot_i,
  input  logic [Side-1:0]        row_ok_i,
  input  logic [Side-1:0]        col_ok_i,
  output logic [Taps-1:0][511:0] d_o
);
  import lk_dw_pkg::*;

  localparam int unsigned Positions = Side * Side;
  localparam int unsigned Chunks    = (Positions + Taps - 1) / Taps;

  if (Side < 2 || Side > 8) begin : gen_bad_side
    $fatal(1, "%m: Side must be 2 to 8, got %0d", Side);
  end
  if (Taps < 1 || Taps > Positions) begin : gen_bad_taps
    $fatal(1, "%m: Taps must be 1 to Side * Side, got %0d", Taps);
  end

  // ---- Line buffers: row r of the column under the window is r lines above the newest pixel ----
  logic [512*(Side-1)-1:0] above;
  logic [512*Side-1:0]     column;
  assign column = {above, px_i};

  lk_sdp_ram #(.Width(512 * (Side - 1)), .Depth(Line)) u_lines (
    .clk_i,
    .re_i    ((re_i && stream_i) || wipe_i),
    .raddr_i (wipe_i ? wipe_addr_i : raddr_i),
    .rdata_o (above),
    .we_i    ((step_i && stream_i) || wipe_i),  // SEC_CM: DEPTHWISE.WIPE
    .waddr_i (wipe_i ? wipe_addr_i : waddr_i),
    .wdata_i (wipe_i ? '0 : column[512*(Side-1)-1:0])
  );

  // ---- Window, in the order of its taps' numbers; what the kernel does not reach stands still --
  logic [511:0]           win_q [Chunks * Taps];
  logic [511:0]           tap [Chunks * Taps];  // as pairs_i has it
  logic [Chunks*Taps-1:0] active, in_left, in_right;  // in the input, by half of the word

  for (genvar r = 0; r < Side; r++) begin : gen_row
    for (genvar c = 0; c < Side; c++) begin : gen_col
      localparam int unsigned Here = ring(r, c);
      localparam int unsigned Left = ring(r, c == 0 ? 0 : c - 1);
      assign active[Here] = 8'(r) < kernel_h_i && 8'(c) < kernel_w_i;
      if (r < 3 && (c == 0 || c == 2)) begin : gen_beside
        // Left of a word's left pixel is the right one of the word before, and so on.
        localparam int unsigned Middle = ring(r, 1);
        localparam int unsigned First  = c == 0 ? Middle : Here;
        localparam int unsigned Second = c == 0 ? Here : Middle;
        assign tap[Here]      = pairs_i ? {win_q[Second][255:0], win_q[First][511:256]}
                                        : win_q[Here];
        assign in_left[Here]  = row_ok_i[r] && (pairs_i && c == 0 ? col_ok_i[1] : col_ok_i[c]);
        assign in_right[Here] = row_ok_i[r] && (pairs_i && c == 2 ? col_ok_i[1] : col_ok_i[c]);
      end else begin : gen_here
        assign tap[Here]      = win_q[Here];
        assign in_left[Here]  = row_ok_i[r] && col_ok_i[c];
        assign in_right[Here] = row_ok_i[r] && col_ok_i[c];
      end
      // SEC_CM: DEPTHWISE.WIPE
      always_ff @(posedge clk_i) begin
        if (wipe_i || (step_i && (Here == 0 || (stream_i && active[Here])))) begin
          win_q[Here] <= wipe_i ? '0 : (c == 0) ? column[512*r +: 512] : win_q[Left];
        end
      end
    end
  end
  for (genvar o = Positions; o < Chunks * Taps; o++) begin : gen_none
    assign active[o]   = 1'b0;
    assign tap[o]      = win_q[o];
    assign in_left[o]  = 1'b0;
    assign in_right[o] = 1'b0;
    always_ff @(posedge clk_i) if (wipe_i) win_q[o] <= '0;
  end

  // ---- Taps for the multipliers ----
  localparam int unsigned Ow = $clog2(Chunks * Taps + 1);
  for (genvar s = 0; s < Taps; s++) begin : gen_slot
    always_ff @(posedge clk_i) begin
      if (wipe_i) begin
        d_o[s] <= '0;
      end else if (sel_i && !stream_i) begin
        d_o[s] <= slot_i != 6'(s) ? '0 : in_left[0] ? win_q[0] : {64{pad_i}};
      end else if (sel_i) begin
        logic [Ow-1:0] o;
        o = Ow'(chunk_i) * Ow'(Taps) + Ow'(s);
        d_o[s] <= !active[o] ? '0 : {in_right[o] ? tap[o][511:256] : {32{pad_i}},
                                     in_left[o] ? tap[o][255:0] : {32{pad_i}}};
      end
    end
  end
endmodule
