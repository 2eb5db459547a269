// Activation scratchpad: Words x 512 bit, one read port, one write port with byte enables. It is
// meant to become UltraRAM (or block RAM); ReadLatency counts the registers behind the array, the
// first inside the memory, the others to cross its cascade.
//
// A read and a write of the same word in one cycle: the read returns the old content.
// wipe_i (level or pulse) starts a walk that writes zero to every word, one per cycle, and clears
// the read registers; wipe_busy_o stays high until it has finished. Reads and writes are ignored
// meanwhile. A wipe_i that stays high does not start a second walk.
module lk_scratchpad #(
  parameter int unsigned Words       = 65536,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Aw         = $clog2(Words)
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          wipe_i,
  output logic          wipe_busy_o,
  input  logic          rd_en_i,
  input  logic [Aw-1:0] rd_addr_i,
  output logic [511:0]  rd_data_o,
  input  logic          wr_en_i,
  input  logic [Aw-1:0] wr_addr_i,
  input  logic [63:0]   wr_be_i,
  input  logic [511:0]  wr_data_i
);
  if (Words < 2 || (Words & (Words - 1)) != 0) begin : gen_bad_words
    $fatal(1, "%m: Words must be a power of two and at least 2, got %0d", Words);
  end
  if (ReadLatency < 1 || ReadLatency > 4) begin : gen_bad_latency
    $fatal(1, "%m: ReadLatency must be 1 to 4, got %0d", ReadLatency);
  end

  (* ram_style = "ultra" *) logic [511:0] mem [Words];

  // SEC_CM: SPAD.MEM.SEC_WIPE
  logic          wipe_q, walk_q;
  logic [Aw-1:0] walk_addr_q;
  assign wipe_busy_o = walk_q || (wipe_i && !wipe_q);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wipe_q      <= 1'b0;
      walk_q      <= 1'b0;
      walk_addr_q <= '0;
    end else begin
      wipe_q <= wipe_i;
      if (walk_q) begin
        walk_addr_q <= walk_addr_q + 1'b1;
        if (walk_addr_q == Aw'(Words - 1)) walk_q <= 1'b0;
      end else if (wipe_i && !wipe_q) begin
        walk_q      <= 1'b1;
        walk_addr_q <= '0;
      end
    end
  end

  logic          we;
  logic [Aw-1:0] waddr;
  logic [63:0]   wbe;
  logic [511:0]  wdata;
  assign we    = walk_q || (wr_en_i && !wipe_busy_o);
  assign waddr = walk_q ? walk_addr_q : wr_addr_i;
  assign wbe   = walk_q ? '1 : wr_be_i;
  assign wdata = walk_q ? '0 : wr_data_i;

`ifdef VERILATOR
  // The same function as the byte-enabled port below, in one assignment: a simulator would keep a
  // pending write per byte otherwise.
  always_ff @(posedge clk_i) begin
    if (we) begin
      automatic logic [511:0] mask;
      for (int unsigned b = 0; b < 64; b++) mask[8*b +: 8] = {8{wbe[b]}};
      mem[waddr] <= (mem[waddr] & ~mask) | (wdata & mask);
    end
  end
`else
  always_ff @(posedge clk_i) begin
    if (we) begin
      for (int unsigned b = 0; b < 64; b++) begin
        if (wbe[b]) mem[waddr][8*b +: 8] <= wdata[8*b +: 8];
      end
    end
  end
`endif

  logic [511:0]             rd_q  [ReadLatency];
  logic [ReadLatency-1:0]   rd_en_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rd_en_q <= '0;
    else         rd_en_q <= ReadLatency'({rd_en_q, rd_en_i});
  end

  always_ff @(posedge clk_i) begin
    if (wipe_busy_o) rd_q[0] <= '0;
    else if (rd_en_i) rd_q[0] <= mem[rd_addr_i];
  end
  for (genvar i = 1; i < ReadLatency; i++) begin : gen_read_reg
    always_ff @(posedge clk_i) begin
      if (wipe_busy_o) rd_q[i] <= '0;
      else if (rd_en_q[i-1]) rd_q[i] <= rd_q[i-1];
    end
  end
  assign rd_data_o = rd_q[ReadLatency-1];
endmodule
