// Generic twin of prim_mac_array (see there for the interface): written for simulation speed and
// still synthesizable by inference.
//
// One always block computes a whole row at once with blocking loops; Verilator unrolls them and the
// C++ compiler vectorises the result. Sums wait for their latency in a ring that is written and
// read once per row instead of being shifted every cycle. Blocking assignments are confined to
// variables that no other block reads.
//
// LATCHKEY_FAULT_PRODUCT (never defined in a shipped build) corrupts the product of row 0 and
// column 0. Tests use it to show that results come out of this array and of nothing else.
module prim_generic_mac_array #(
  parameter int unsigned N = 16,
  localparam int unsigned BeatW = $clog2(N * N / 64)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  input  logic              w_we_i,
  input  logic [BeatW-1:0]  w_beat_i,
  input  logic [511:0]      w_data_i,
  input  logic              x_valid_i,
  input  logic              x_swap_i,
  input  logic [8*N-1:0]    x_data_i,
  output logic              y_valid_o,
  output logic [32*N-1:0]   y_data_o
);
  localparam int unsigned Latency = prim_mac_array_pkg::latency(N);
  localparam int unsigned RowW = $clog2(N);
  localparam int unsigned RowsPerBeat = 64 / N;

  // verilator lint_off BLKSEQ
  logic signed [7:0]      w_q [2][N][N];  // two tiles; `active` names the one in use
  logic                   active;         // valid within a cycle only
  logic signed [31:0]     acc [N];
  logic signed [31:0]     xr;
  logic signed [31:0]     product;
  // verilator lint_on BLKSEQ
  logic                   bank_q;
  logic [32*N-1:0]        ring_q [16];
  logic [3:0]             slot_q;
  logic [Latency-2:0]     valid_q;

  if (Latency > 16) begin : gen_bad_latency
    $fatal(1, "%m: the ring holds 16 rows, the latency is %0d", Latency);
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      bank_q    <= 1'b0;
      slot_q    <= '0;
      valid_q   <= '0;
      y_valid_o <= 1'b0;
    end else begin
      bank_q    <= bank_q ^ (x_valid_i && x_swap_i);
      slot_q    <= slot_q + 1'b1;
      valid_q   <= clear_i ? '0 : {valid_q[Latency-3:0], x_valid_i};
      y_valid_o <= valid_q[Latency-2] && !clear_i;
    end
  end

  // verilator lint_off BLKSEQ
  always_ff @(posedge clk_i) begin
    // The row that swaps already computes with the new tile, and a beat of its cycle already goes
    // to the new shadow.
    active = bank_q ^ (x_valid_i && x_swap_i);

    if (valid_q[Latency-2]) y_data_o <= ring_q[4'(slot_q - 4'(Latency - 1))];

    if (x_valid_i) begin
      for (int unsigned c = 0; c < N; c++) acc[c] = '0;
      for (int unsigned r = 0; r < N; r++) begin
        xr = 32'(signed'(x_data_i[8*r+:8]));
        for (int unsigned c = 0; c < N; c++) begin
          product = xr * 32'(w_q[active][RowW'(r)][RowW'(c)]);
`ifdef LATCHKEY_FAULT_PRODUCT
          if (r == 0 && c == 0) product = product ^ 32'sh1000;
`endif
          acc[c] = acc[c] + product;
        end
      end
      for (int unsigned c = 0; c < N; c++) ring_q[slot_q][32*c+:32] <= acc[c];
    end

    if (w_we_i) begin
      for (int unsigned i = 0; i < 64; i++) begin
        w_q[!active][RowW'(32'(w_beat_i) * RowsPerBeat + i / N)][RowW'(i % N)] = w_data_i[8*i+:8];
      end
    end
    if (wipe_i) begin
      // SEC_CM: WEIGHTS.WIPE
      for (int unsigned r = 0; r < N; r++) begin
        for (int unsigned c = 0; c < N; c++) begin
          w_q[0][r][c] = '0;
          w_q[1][r][c] = '0;
        end
      end
      ring_q[slot_q] <= '0;
      y_data_o       <= '0;
    end
  end
  // verilator lint_on BLKSEQ
endmodule
