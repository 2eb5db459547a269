// AES-128 counter-mode keystream: four lanes, one 512-bit beat of keystream a cycle.
//
// Lane l encrypts IV | big-endian 32-bit (ctr_i + l), the sum taken modulo 2^32 (GCM's inc32).
// One pipeline stage a round plus one for counter and whitening: the S-box is one LUT level and
// MixColumns two, so a second stage a round would only double the registers. Keystream appears in
// ks_o 11 cycles after valid_i. No back-pressure: what enters leaves.
// Byte order: byte b of a bus is bits [8*b+7:8*b]; lane l is bits [128*l+127:128*l].
// round_keys_i must be stable while beats are in flight.
module lk_aes_ctr (
  input  logic                                  clk_i,
  input  logic                                  rst_ni,
  input  logic                                  wipe_i,
  input  logic [lk_gcm_pkg::AesRounds:0][127:0] round_keys_i,
  input  logic                                  valid_i,
  input  logic [95:0]                           iv_i,
  input  logic [31:0]                           ctr_i,
  output logic                                  valid_o,
  output logic [511:0]                          ks_o
);
  localparam int unsigned Rounds = lk_gcm_pkg::AesRounds;

  logic [Rounds:0] valid_q;  // stage r holds a beat

  assign valid_o = valid_q[Rounds];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else if (wipe_i) valid_q <= '0;
    else valid_q <= {valid_q[Rounds-1:0], valid_i};
  end

  for (genvar l = 0; l < lk_gcm_pkg::Lanes; l++) begin : gen_lane
    for (genvar r = 0; r <= Rounds; r++) begin : gen_round
      logic [127:0] state;
      if (r == 0) begin : gen_first
        always_ff @(posedge clk_i) begin
          if (wipe_i) begin
            state <= '0;  // SEC_CM: KEY.ZEROISE
          end else if (valid_i) begin
            state <= {lk_gcm_pkg::swap32(ctr_i + 32'(l)), iv_i} ^ round_keys_i[0];
          end
        end
      end else begin : gen_next
        prim_aes_round #(.Kind(r == Rounds ? 1 : 0)) u_round (
          .clk_i   (clk_i),
          .clear_i (wipe_i),
          .en_i    (valid_q[r-1]),
          .last_i  (1'b0),
          .state_i (gen_round[r-1].state),
          .key_i   (round_keys_i[r]),
          .state_o (state)
        );
      end
    end
    assign ks_o[128*l +: 128] = gen_round[Rounds].state;
  end
endmodule
