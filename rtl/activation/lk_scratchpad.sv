// Activation scratchpad: Words x 512 bit in eight banks, two read ports, one write port with byte
// enables. The banks are meant to become UltraRAM (or block RAM) with one read and one write port
// each; ReadLatency counts the registers behind the array, the first inside the memory, the second
// behind the choice of a bank, the others to spare.
//
// The first read port is always served. The second is served in a cycle in which rd2_gnt_o is high,
// which it is unless both ports want the same bank; a request that is not granted must stay. So the
// array's feed never waits for an operand of a residual addition. A word's bank is the exclusive or
// of all three-bit digits of its address: two walks through tensors meet in one of eight cycles,
// whatever their strides are.
//
// A read and a write of the same word in one cycle: the read returns the old content.
// wipe_i (level or pulse) starts a walk that writes zero to every word, one of each bank per cycle,
// and clears the read registers; wipe_busy_o stays high until it has finished, Words / 8 cycles.
// Reads and writes are ignored meanwhile. A wipe_i that stays high does not start a second walk.
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
  input  logic          rd2_en_i,
  output logic          rd2_gnt_o,
  input  logic [Aw-1:0] rd2_addr_i,
  output logic [511:0]  rd2_data_o,
  input  logic          wr_en_i,
  input  logic [Aw-1:0] wr_addr_i,
  input  logic [63:0]   wr_be_i,
  input  logic [511:0]  wr_data_i
);
  localparam int unsigned Banks = 8;
  localparam int unsigned Bw    = $clog2(Banks);

  if (Words < 2 * Banks || (Words & (Words - 1)) != 0) begin : gen_bad_words
    $fatal(1, "%m: Words must be a power of two and at least %0d, got %0d", 2 * Banks, Words);
  end
  if (ReadLatency < 2 || ReadLatency > 4) begin : gen_bad_latency
    $fatal(1, "%m: ReadLatency must be 2 to 4, got %0d", ReadLatency);
  end

  function automatic logic [Bw-1:0] bank_of(input logic [Aw-1:0] a);
    logic [Bw-1:0] b;
    b = '0;
    for (int unsigned i = 0; i < Aw; i++) b[i % Bw] = b[i % Bw] ^ a[i];
    return b;
  endfunction

  // SEC_CM: SPAD.MEM.SEC_WIPE
  logic             wipe_q, walk_q;
  logic [Aw-Bw-1:0] walk_row_q;
  assign wipe_busy_o = walk_q || (wipe_i && !wipe_q);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wipe_q      <= 1'b0;
      walk_q      <= 1'b0;
      walk_row_q <= '0;
    end else begin
      wipe_q <= wipe_i;
      if (walk_q) begin
        walk_row_q <= walk_row_q + 1'b1;
        if (walk_row_q == '1) walk_q <= 1'b0;
      end else if (wipe_i && !wipe_q) begin
        walk_q      <= 1'b1;
        walk_row_q <= '0;
      end
    end
  end

  logic             we;
  logic [Aw-Bw-1:0] wrow;
  logic [63:0]      wbe;
  logic [511:0]     wdata;
  assign we    = wr_en_i && !wipe_busy_o;
  assign wrow  = walk_q ? walk_row_q : wr_addr_i[Aw-1:Bw];
  assign wbe   = walk_q ? '1 : wr_be_i;
  assign wdata = walk_q ? '0 : wr_data_i;

  // ---- Banks ----
  logic [Bw-1:0] rbank, rbank2, wbank;
  logic [511:0]  bank_q [Banks];  // first read register of each bank
  assign rbank     = bank_of(rd_addr_i);
  assign rbank2    = bank_of(rd2_addr_i);
  assign wbank     = bank_of(wr_addr_i);
  assign rd2_gnt_o = rd2_en_i && !(rd_en_i && rbank == rbank2);

  for (genvar b = 0; b < Banks; b++) begin : gen_bank
    (* ram_style = "ultra" *) logic [511:0] mem [Words / Banks];

    logic             bank_re, bank_we;
    logic [Aw-Bw-1:0] bank_raddr;
    assign bank_we    = walk_q || (we && wbank == Bw'(b));
    assign bank_re    = (rd_en_i && rbank == Bw'(b)) || (rd2_gnt_o && rbank2 == Bw'(b));
    assign bank_raddr = (rd_en_i && rbank == Bw'(b)) ? rd_addr_i[Aw-1:Bw] : rd2_addr_i[Aw-1:Bw];

`ifdef VERILATOR
    // The same function as the byte-enabled port below, in one assignment: a simulator would keep a
    // pending write per byte otherwise.
    always_ff @(posedge clk_i) begin
      if (bank_we) begin
        automatic logic [511:0] mask;
        for (int unsigned i = 0; i < 64; i++) mask[8*i +: 8] = {8{wbe[i]}};
        mem[wrow] <= (mem[wrow] & ~mask) | (wdata & mask);
      end
    end
`else
    always_ff @(posedge clk_i) begin
      if (bank_we) begin
        for (int unsigned i = 0; i < 64; i++) begin
          if (wbe[i]) mem[wrow][8*i +: 8] <= wdata[8*i +: 8];
        end
      end
    end
`endif

    // A register of its own: synthesis takes an array of them for one more memory, and the bank
    // then has no output register.
    logic [511:0] q;
    always_ff @(posedge clk_i) begin
      if (wipe_busy_o) q <= '0;
      else if (bank_re) q <= mem[bank_raddr];
    end
    assign bank_q[b] = q;
  end

  // ---- Read registers behind the choice of a bank, per port ----
  logic [1:0]         port_en;
  logic [1:0][Bw-1:0] port_bank;
  logic [511:0]       port_data [2];
  assign port_en    = {rd2_gnt_o, rd_en_i};
  assign port_bank  = {rbank2, rbank};
  assign rd_data_o  = port_data[0];
  assign rd2_data_o = port_data[1];

  for (genvar p = 0; p < 2; p++) begin : gen_port
    logic [511:0]           rd_q [1:ReadLatency-1];
    logic [ReadLatency-2:0] rd_en_q;
    logic [Bw-1:0]          sel_q;

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) rd_en_q <= '0;
      else         rd_en_q <= (ReadLatency - 1)'({rd_en_q, port_en[p]});
    end
    always_ff @(posedge clk_i) begin
      if (port_en[p]) sel_q <= port_bank[p];
    end
    for (genvar i = 1; i < ReadLatency; i++) begin : gen_read_reg
      always_ff @(posedge clk_i) begin
        if (wipe_busy_o) rd_q[i] <= '0;
        else if (rd_en_q[i-1]) rd_q[i] <= (i == 1) ? bank_q[sel_q] : rd_q[(i == 1) ? 1 : i-1];
      end
    end
    assign port_data[p] = rd_q[ReadLatency-1];
  end
endmodule
