// Two banks of int32 accumulators, 512 rows x 64 channels each, kept as words of ArrayN channels at
// address {row, ni} (ni = subtile column, $clog2(64/ArrayN) bits).
//
// Accumulate port. The address of a row's sums comes two cycles before the sums themselves:
//   cycle t    row_valid_i, row_bank_i, row_addr_i, row_first_i, row_last_i: read starts
//   cycle t+2  sum_i holds the row's ArrayN sums; they are added to the word read, or replace it if
//              row_first_i was set
//   cycle t+3  the result is written; sweep_done_o[bank] marks it if row_last_i was set
// So the same word may be addressed again from cycle t+4 on (RmwDistance); lk_sweep keeps the
// distance.
//
// Drain port: dr_re_i with bank and address in cycle t gives dr_word_o in cycle t+2. The bank that
// is drained must not be swept meanwhile, because each bank has a single read port.
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
  input  logic                 row_bank_i,
  input  logic [Aw-1:0]        row_addr_i,
  input  logic                 row_first_i,
  input  logic                 row_last_i,
  input  logic [32*ArrayN-1:0] sum_i,
  output logic [1:0]           sweep_done_o,
  input  logic                 dr_re_i,
  input  logic                 dr_bank_i,
  input  logic [Aw-1:0]        dr_addr_i,
  output logic [32*ArrayN-1:0] dr_word_o
);
  localparam int unsigned Depth = lk_pkg::AccRows * 64 / ArrayN;

  typedef struct packed {
    logic          bank;
    logic          first;
    logic          last;
    logic [Aw-1:0] addr;
  } meta_t;

  logic                 v1_q, v2_q, v3_q;
  // verilator lint_off UNUSEDSIGNAL
  meta_t                m1_q, m2_q, m3_q;  // m3_q does not use `first`
  // verilator lint_on UNUSEDSIGNAL
  logic [32*ArrayN-1:0] wr_q;
  logic [32*ArrayN-1:0] rdata [2];
  logic                 dr_bank1_q, dr_bank2_q;

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
    if (row_valid_i) m1_q <= '{row_bank_i, row_first_i, row_last_i, row_addr_i};
    if (v1_q) m2_q <= m1_q;
    if (v2_q) begin
      m3_q <= m2_q;
      for (int unsigned c = 0; c < ArrayN; c++) begin
        wr_q[32*c+:32] <= sum_i[32*c+:32] + (m2_q.first ? 32'd0 : rdata[m2_q.bank][32*c+:32]);
      end
    end
    if (wipe_i) wr_q <= '0;
    dr_bank1_q <= dr_bank_i;
    dr_bank2_q <= dr_bank1_q;
  end

  for (genvar b = 0; b < 2; b++) begin : gen_bank
    logic          sweep_re, drain_re;
    logic [Aw-1:0] raddr, waddr;
    assign sweep_re = row_valid_i && row_bank_i == 1'(b);
    assign drain_re = dr_re_i && dr_bank_i == 1'(b);
    assign raddr    = wipe_i ? wipe_addr_i : drain_re ? dr_addr_i : row_addr_i;
    assign waddr    = wipe_i ? wipe_addr_i : m3_q.addr;
    lk_sdp_ram #(.Width(32 * ArrayN), .Depth(Depth)) u_bank (
      .clk_i,
      .re_i    (sweep_re || drain_re || wipe_i),
      .raddr_i (raddr),
      .rdata_o (rdata[b]),
      .we_i    (wipe_i || (v3_q && m3_q.bank == 1'(b))),  // SEC_CM: ACCUMULATORS.WIPE
      .waddr_i (waddr),
      .wdata_i (wipe_i ? '0 : wr_q)
    );
    assign sweep_done_o[b] = v3_q && m3_q.last && m3_q.bank == 1'(b);
`ifdef VERILATOR
    always_ff @(posedge clk_i) begin
      assert (!rst_ni || !(sweep_re && drain_re)) else $error("%m: swept while drained");
      assert (!rst_ni || !(row_valid_i && v3_q && m3_q.bank == row_bank_i &&
                           m3_q.addr == row_addr_i))
      else $error("%m: read-modify-write distance violated");
    end
`endif
  end
  assign dr_word_o = rdata[dr_bank2_q];
endmodule
