// Multiply-accumulate of the depthwise path: 64 int8 channels, Taps products each per cycle, int32
// sums, with the weights of two channel blocks.
//
// Weights: tap number n of a block lies in bank n % Taps at n / Taps; w_we_i writes a word of 64
// channels into the half w_half_i of a bank. A read of what is being written is not made.
//
// sel_i with half and chunk starts one accumulation step: d_i, the 64 channels of every tap,
// follows one cycle later. first_i starts a sum. acc_o holds the sum four cycles after sel_i, until
// the next step ends. One step per cycle. clear_i drops the steps in flight.
//
// wipe_i clears the pipeline, and the weights at wipe_addr_i, which the caller walks through all.
module lk_dw_mac #(
  parameter int unsigned Taps  = 9,
  localparam int unsigned Aw   = 1 + $clog2((64 + Taps - 1) / Taps)
) (
  input  logic                   clk_i,
  input  logic                   rst_ni,
  input  logic                   clear_i,
  input  logic                   wipe_i,
  input  logic [6:0]             wipe_addr_i,
  input  logic                   w_we_i,
  input  logic                   w_half_i,
  input  logic [5:0]             w_tap_i,
  input  logic [511:0]           w_data_i,
  input  logic                   sel_i,
  input  logic                   half_i,
  input  logic [5:0]             chunk_i,
  input  logic                   first_i,
  input  logic [Taps-1:0][511:0] d_i,
  output logic [64*32-1:0]       acc_o
);
  if (Taps < 1 || Taps > 32) begin : gen_bad_taps
    $fatal(1, "%m: Taps must be 1 to 32, got %0d", Taps);
  end

  logic [5:0] bank;
  logic [5:0] index;
  assign bank  = 6'(w_tap_i % 6'(Taps));
  assign index = 6'(w_tap_i / 6'(Taps));

  logic [2:0] valid_q, first_q;  // operands, products, sums
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= '0;
      first_q <= '0;
    end else if (clear_i) begin
      valid_q <= '0;
    end else begin
      valid_q <= {valid_q[1:0], sel_i};
      first_q <= {first_q[1:0], first_i};
    end
  end

  logic [511:0] w_q [Taps];
  for (genvar s = 0; s < Taps; s++) begin : gen_bank
    (* ram_style = "distributed" *) logic [511:0] mem [1 << Aw];
    logic we;
    assign we = w_we_i && bank == 6'(s);
    // SEC_CM: DEPTHWISE.WIPE
    always_ff @(posedge clk_i) begin
      if (wipe_i || we) begin
        mem[wipe_i ? wipe_addr_i[Aw-1:0] : {w_half_i, index[Aw-2:0]}] <= wipe_i ? '0 : w_data_i;
      end
      if (wipe_i || sel_i) w_q[s] <= wipe_i ? '0 : mem[{half_i, chunk_i[Aw-2:0]}];
    end
  end

  for (genvar l = 0; l < 64; l++) begin : gen_lane
    logic signed [15:0] product_q [Taps];
    logic signed [21:0] sum_q;
    logic signed [31:0] acc_q;
    assign acc_o[32*l +: 32] = acc_q;
    // SEC_CM: DEPTHWISE.WIPE
    always_ff @(posedge clk_i) begin
      if (wipe_i) begin
        for (int unsigned s = 0; s < Taps; s++) product_q[s] <= '0;
        sum_q <= '0;
        acc_q <= '0;
      end else begin
        if (valid_q[0]) begin
          for (int unsigned s = 0; s < Taps; s++) begin
            product_q[s] <= $signed(d_i[s][8*l +: 8]) * $signed(w_q[s][8*l +: 8]);
          end
        end
        if (valid_q[1]) begin
          logic signed [21:0] sum;
          sum = '0;
          for (int unsigned s = 0; s < Taps; s++) sum = sum + 22'(product_q[s]);
          sum_q <= sum;
        end
        if (valid_q[2]) acc_q <= (first_q[2] ? '0 : acc_q) + 32'(sum_q);
      end
    end
  end
endmodule
