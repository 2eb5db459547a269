// Two banks of int32 accumulators, 512 rows x 64 channels each, kept as words of ArrayN channels at
// address {row, ni} (ni = subtile column, $clog2(64/ArrayN) bits).
//
// Accumulate port. The address of a row's sums comes two cycles before the sums themselves:
//   cycle t    row_valid_i, row_tile_i, row_addr_i, row_first_i, row_last_i: read starts
//   cycle t+2  sum_i holds the row's ArrayN sums; they are added to the word read, or replace it if
//              row_first_i was set
//   cycle t+3  the result is written; landed_* tell of it
// The bank of a tile is the lowest bit of its number.
// So the same word may be addressed again from cycle t+4 on (RmwDistance); lk_sweep keeps the
// distance.
//
// Drain port: dr_re_i with bank and address in cycle t gives dr_word_o in cycle t+2. Each bank has
// a single read port: while it is drained, only rows with row_first_i may come for it. dr_follow_i
// in the cycle behind row_valid_i gives the row's result instead, in dr_word_o two cycles later.
//
// wipe_i zeroes both banks at wipe_addr_i, which the caller counts through all addresses; hold it
// four cycles longer to flush the pipeline registers too. clear_i drops rows in flight.
module lk_accumulators #(
  parameter int unsigned ArrayN = 16,
  localparam int unsigned NiW = $clog2(64 / ArrayN),
  localparam int unsigned Aw = $clog2(lk_pkg::AccRows) + NiW
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 clear_i,
  input  logic                 wipe_i,
  input  logic [Aw-1:0]        wipe_addr_i,
  input  logic                 row_valid_i,
  input  logic [1:0]           row_tile_i,
  input  logic [Aw-1:0]        row_addr_i,
  input  logic                 row_first_i,
  input  logic                 row_last_i,
  input  logic [32*ArrayN-1:0] sum_i,
  output logic                 landed_o,
  output logic [1:0]           landed_tile_o,
  output logic                 landed_first_o,
  output logic                 landed_last_o,
  output logic [8:0]           landed_row_o,
  input  logic                 dr_re_i,
  input  logic                 dr_follow_i,
  input  logic                 dr_bank_i,
  input  logic [Aw-1:0]        dr_addr_i,
  output logic [32*ArrayN-1:0] dr_word_o
);
  localparam int unsigned Depth = lk_pkg::AccRows * 64 / ArrayN;

  typedef struct packed {
    logic [1:0]    tile;
    logic          first;
    logic          last;
    logic [Aw-1:0] addr;
  } meta_t;

  logic                 v1_q, v2_q, v3_q;
  meta_t                m1_q, m2_q, m3_q;
  logic [32*ArrayN-1:0] wr_q;
  logic [32*ArrayN-1:0] rdata [2];
  logic                 dr_bank1_q, dr_bank2_q, dr_follow1_q, dr_follow2_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {v1_q, v2_q, v3_q} <= '0;
    end else begin
      v1_q <= row_valid_i && !clear_i;
      v2_q <= v1_q && !clear_i;
      v3_q <= v2_q && !clear_i;
    end
  end

  always_ff @(posedge clk_i) begin
    if (row_valid_i) m1_q <= '{row_tile_i, row_first_i, row_last_i, row_addr_i};
    if (v1_q) m2_q <= m1_q;
    if (v2_q) begin
      m3_q <= m2_q;
      for (int unsigned c = 0; c < ArrayN; c++) begin
        wr_q[32*c+:32] <= sum_i[32*c+:32] + (m2_q.first ? 32'd0 : rdata[m2_q.tile[0]][32*c+:32]);
      end
    end
    if (wipe_i) wr_q <= '0;
    dr_bank1_q <= dr_bank_i;
    dr_bank2_q <= dr_bank1_q;
    dr_follow1_q <= dr_follow_i;
    dr_follow2_q <= dr_follow1_q;
  end

  for (genvar b = 0; b < 2; b++) begin : gen_bank
    logic          sweep_re, drain_re;
    logic [Aw-1:0] raddr, waddr;
    assign sweep_re = row_valid_i && !row_first_i && row_tile_i[0] == 1'(b);
    assign drain_re = dr_re_i && dr_bank_i == 1'(b);
    assign raddr    = wipe_i ? wipe_addr_i : drain_re ? dr_addr_i : row_addr_i;
    assign waddr    = wipe_i ? wipe_addr_i : m3_q.addr;
    lk_sdp_ram #(.Width(32 * ArrayN), .Depth(Depth)) u_bank (
      .clk_i,
      .re_i    (sweep_re || drain_re || wipe_i),
      .raddr_i (raddr),
      .rdata_o (rdata[b]),
      .we_i    (wipe_i || (v3_q && m3_q.tile[0] == 1'(b))),  // SEC_CM: ACCUMULATORS.WIPE
      .waddr_i (waddr),
      .wdata_i (wipe_i ? '0 : wr_q)
    );
`ifdef VERILATOR
    always_ff @(posedge clk_i) begin
      assert (!rst_ni || !(sweep_re && drain_re)) else $error("%m: swept while drained");
      assert (!rst_ni || !(row_valid_i && v3_q && m3_q.tile[0] == row_tile_i[0] &&
                           m3_q.addr == row_addr_i))
      else $error("%m: read-modify-write distance violated");
    end
`endif
  end
  assign dr_word_o      = dr_follow2_q ? wr_q : rdata[dr_bank2_q];
  assign landed_o       = v3_q;
  assign landed_tile_o  = m3_q.tile;
  assign landed_first_o = m3_q.first;
  assign landed_last_o  = m3_q.last;
  assign landed_row_o   = m3_q.addr[Aw-1-:9];
endmodule
