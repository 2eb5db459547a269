// Drains a finished accumulator bank: for row in rows, for group in groups, a word of ArrayN
// accumulators through the post unit to the result port.
//
// Commands wait in a queue of two. They come in the order of the tiles, which use the banks in
// turn; tile_o is the number, modulo four, of the tile whose command is the head or comes next, and
// row_o says how many of its rows have been read. The head reads rows that stand: all of them with
// whole_i, and else the first standing_i. Or it takes the rows along that the last sweep of its
// tile is finishing: next_o says that it is free to, follow_take_i in a cycle with follow_room_o
// reserves a place for each, and follow_i is the row's turn, its accumulators coming as if they had
// been read. Group g of a row is its channels from ArrayN*g on, whose parameters are those from
// channel dr_chan + ArrayN*g on; dr_chan is a multiple of 64. A read is only started if its result
// has a place in the output FIFO, so y_ready_i may stall at any time and for as long as it likes.
//
// A guest (g_*) may use the post unit while no command waits: it takes places of the output FIFO
// with g_take_i, up to four from a cycle on in which g_room_o is high, and hands its accumulators
// over later. Their parameters are g_scale_i = {s, M} for all lanes and no bias, or, without
// g_uniform_i, those of channels g_chan_i on, asked for with g_re_i two cycles before; bit 23 of M
// is a sign then, and negates the accumulator. The command's dr_zero_i, dr_lo_i and dr_hi_i count
// for it.
module lk_drain #(
  parameter int unsigned ArrayN = 16,
  localparam int unsigned NiW = $clog2(64 / ArrayN),
  localparam int unsigned Aw = $clog2(lk_pkg::AccRows) + NiW,
  localparam int unsigned Pw = $clog2(lk_pkg::MaxChannels / ArrayN)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 clear_i,
  input  logic                 wipe_i,
  output logic                 next_o,
  output logic                 follow_room_o,
  input  logic                 follow_take_i,
  input  logic                 follow_i,
  input  logic                 whole_i,
  input  logic [9:0]           standing_i,
  output logic [1:0]           tile_o,
  output logic [8:0]           row_o,
  input  logic                 dr_valid_i,
  output logic                 dr_ready_o,
  input  logic [9:0]           dr_rows_i,
  input  logic [11:0]          dr_chan_i,
  input  logic [2:0]           dr_groups_i,
  input  logic [7:0]           dr_zero_i,
  input  logic [7:0]           dr_lo_i,
  input  logic [7:0]           dr_hi_i,
  // accumulator read port, word two cycles later
  output logic                 re_o,
  output logic                 prm_re_o,
  output logic [Aw-1:0]        addr_o,
  input  logic [32*ArrayN-1:0] word_i,
  // parameter read port, two cycles
  output logic [Pw-1:0]        prm_addr_o,
  input  logic [62*ArrayN-1:0] prm_i,
  output logic                 y_valid_o,
  input  logic                 y_ready_i,
  output logic [8*ArrayN-1:0]  y_data_o,
  output logic [9:0]           y_row_o,
  output logic [1:0]           y_group_o,
  output logic                 y_row_last_o,  // the row's last group
  output logic                 y_last_o,
  output logic                 g_room_o,
  input  logic                 g_take_i,
  input  logic                 g_re_i,
  input  logic [11:0]          g_chan_i,
  input  logic                 g_valid_i,
  input  logic                 g_uniform_i,
  input  logic [29:0]          g_scale_i,
  input  logic [32*ArrayN-1:0] g_acc_i,
  input  logic [1:0]           g_group_i
);
  localparam int unsigned Slots = 32;  // more than the 14 cycles from read to FIFO, so it streams

  typedef struct packed {
    logic [9:0]  rows;
    logic [11:0] chan;
    logic [2:0]  groups;
    logic [7:0]  zero, lo, hi;
  } cmd_t;

  typedef struct packed {
    logic [8:0] row;
    logic [1:0] group;
    logic       row_last;
    logic       last;
  } tag_t;

  // ---- commands ---------------------------------------------------------------------------------
  cmd_t       cmd;
  logic       cmd_valid, cmd_done;
  lk_fifo #(.Width($bits(cmd_t)), .Depth(2)) u_cmd (
    .clk_i, .rst_ni, .clear_i,
    .valid_i (dr_valid_i),
    .ready_o (dr_ready_o),
    .data_i  ({dr_rows_i, dr_chan_i, dr_groups_i, dr_zero_i, dr_lo_i, dr_hi_i}),
    .valid_o (cmd_valid),
    .ready_i (cmd_done),
    .data_o  (cmd),
    .level_o ()
  );

  logic [1:0] tile_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) tile_q <= '0;
    else if (clear_i) tile_q <= '0;
    else if (cmd_done) tile_q <= tile_q + 1'b1;
  end
  assign tile_o = tile_q;

  // ---- reads ------------------------------------------------------------------------------------
  logic [8:0]               row_q;
  logic [1:0]               group_q;
  logic [$clog2(Slots):0]   used_q;   // reads whose result has not left the FIFO yet
  logic                     issue, read, pop, last_group, last_row;

  assign next_o        = cmd_valid && row_q == '0 && group_q == '0;
  assign follow_room_o = used_q != ($clog2(Slots) + 1)'(Slots);
  assign read       = cmd_valid && (whole_i || 10'(row_q) < standing_i) && !clear_i &&
                      used_q != ($clog2(Slots) + 1)'(Slots);
  assign issue      = read || (follow_i && !clear_i);
  assign last_group = 3'(group_q) + 3'd1 == cmd.groups;
  assign last_row   = 10'(row_q) + 10'd1 == cmd.rows;
  assign cmd_done   = issue && last_group && last_row;
  assign re_o       = read;
  assign prm_re_o   = issue || g_re_i;
  assign g_room_o   = !cmd_valid && used_q <= ($clog2(Slots) + 1)'(Slots - 4);
  assign row_o      = row_q;
  assign prm_addr_o = g_re_i ? g_chan_i[11-:Pw] : cmd.chan[11-:Pw] + Pw'(group_q);

  if (ArrayN == 64) begin : gen_addr64
    assign addr_o = row_q;
  end else begin : gen_addr
    assign addr_o = {row_q, group_q[NiW-1:0]};
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      row_q   <= '0;
      group_q <= '0;
      used_q  <= '0;
    end else if (clear_i) begin
      row_q   <= '0;
      group_q <= '0;
      used_q  <= '0;
    end else begin
      used_q <= used_q + ($bits(used_q))'(read || g_take_i || follow_take_i) -
                ($bits(used_q))'(pop);
      if (issue) begin
        group_q <= last_group ? '0 : group_q + 1'b1;
        if (last_group) row_q <= last_row ? '0 : row_q + 1'b1;
      end
    end
  end

  // ---- two cycles of RAM ------------------------------------------------------------------------
  logic        v1_q, v2_q;
  tag_t        tag1_q, tag2_q;
  logic [23:0] cfg1_q, cfg2_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {v1_q, v2_q} <= '0;
    else {v1_q, v2_q} <= {issue, v1_q && !clear_i};
  end
  always_ff @(posedge clk_i) begin
    if (issue) begin
      tag1_q <= '{row_q, group_q, last_group, last_group && last_row};
      cfg1_q <= {cmd.zero, cmd.lo, cmd.hi};
    end
    if (v1_q) begin
      tag2_q <= tag1_q;
      cfg2_q <= cfg1_q;
    end
  end

  // ---- post unit and output FIFO ----------------------------------------------------------------
  logic                rq_valid;
  logic [8*ArrayN-1:0] rq_y;
  tag_t                rq_tag, y_tag;
  logic [32*ArrayN-1:0] acc;
  logic [62*ArrayN-1:0] prm;
  always_comb begin
    acc = word_i;
    prm = prm_i;
    if (g_valid_i) begin
      for (int unsigned i = 0; i < ArrayN; i++) begin
        acc[32*i +: 32] = g_acc_i[32*i +: 32];
        if (g_uniform_i) prm[62*i +: 62] = {g_scale_i, 32'd0};
        else if (prm_i[62*i+55]) begin
          acc[32*i +: 32] = -g_acc_i[32*i +: 32];
          prm[62*i+55]    = 1'b0;
        end
      end
    end
  end

  lk_requant #(.Lanes(ArrayN), .TagW($bits(tag_t))) u_requant (
    .clk_i, .rst_ni, .clear_i, .wipe_i,
    .valid_i (v2_q || g_valid_i),
    .acc_i   (acc),
    .prm_i   (prm),
    .zero_i  (g_valid_i ? dr_zero_i : cfg2_q[23:16]),
    .lo_i    (g_valid_i ? dr_lo_i : cfg2_q[15:8]),
    .hi_i    (g_valid_i ? dr_hi_i : cfg2_q[7:0]),
    .tag_i   (g_valid_i ? tag_t'({9'd0, g_group_i, 2'b00}) : tag2_q),
    .valid_o (rq_valid),
    .y_o     (rq_y),
    .tag_o   (rq_tag)
  );

  logic fifo_valid, fifo_ready;
  // While wiping, zeros run through the FIFO and overwrite every slot.
  lk_fifo #(.Width(8 * ArrayN + $bits(tag_t)), .Depth(Slots)) u_out (
    .clk_i, .rst_ni,
    .clear_i (clear_i && !wipe_i),
    .valid_i (rq_valid || wipe_i),  // SEC_CM: RESULTS.WIPE
    .ready_o (fifo_ready),
    .data_i  (wipe_i ? '0 : {rq_tag, rq_y}),
    .valid_o (fifo_valid),
    .ready_i (y_ready_i || wipe_i),
    .data_o  ({y_tag, y_data_o}),
    .level_o ()
  );
  assign y_valid_o = fifo_valid && !clear_i;
  assign pop       = y_valid_o && y_ready_i;
  assign y_row_o   = 10'(y_tag.row);
  assign y_group_o = y_tag.group;
  assign y_row_last_o = y_tag.row_last;
  assign y_last_o  = y_tag.last;

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    assert (!rst_ni || !rq_valid || wipe_i || clear_i || fifo_ready)
    else $error("%m: the output FIFO overflows");
    if (rst_ni && dr_valid_i && dr_ready_o && !clear_i) begin
      assert (dr_rows_i >= 10'd1 && 32'(dr_rows_i) <= lk_pkg::AccRows && dr_groups_i >= 3'd1 &&
              32'(dr_groups_i) <= 64 / ArrayN && dr_chan_i[5:0] == '0)
      else $error("%m: illegal drain: %0d rows, %0d groups, channel %0d", dr_rows_i, dr_groups_i,
                  dr_chan_i);
    end
  end
`endif
endmodule
