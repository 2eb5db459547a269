// HMAC-SHA256 (RFC 2104, FIPS 198-1) for keys of up to 32 bytes, or plain SHA-256.
//
// `start_i` with `hmac_i` begins a message; the key is read word by word through `key_idx_o` /
// `key_word_i` (same cycle, zero-padded to 32 bytes by its owner) twice, once for the inner and
// once for the outer pad, and must stay unchanged until `done_o`. The message goes in as in
// `lk_sha256`. `done_o` pulses with the tag, which stays in `digest_o` until the next start or
// wipe. A message of n bytes takes 65 * (ceil((n + 9) / 64) + 3) cycles and a handful when words
// arrive without gaps (one block less per pad without `hmac_i`).
module lk_hmac_sha256 (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         wipe_i,
  input  logic         start_i,
  input  logic         hmac_i,
  output logic [2:0]   key_idx_o,
  input  logic [31:0]  key_word_i,
  input  logic         in_valid_i,
  output logic         in_ready_o,
  input  logic [31:0]  in_data_i,
  input  logic [2:0]   in_bytes_i,
  input  logic         in_last_i,
  output logic         busy_o,
  output logic         done_o,
  output logic [255:0] digest_o
);
  // Six-bit codes at distance three; a wrong code ends the run without `done_o`.
  // SEC_CM: KEY.HMAC.SPARSE
  typedef enum logic [5:0] {
    HmIdle  = 6'b000111,
    HmIpad  = 6'b011001,
    HmMsg   = 6'b011110,
    HmOpad  = 6'b101010,
    HmInner = 6'b101101,
    HmOuter = 6'b110011
  } hmac_state_e;

  hmac_state_e  state_q;
  logic [4:0]   word_q;
  logic         hmac_q, done_q;
  logic [255:0] inner_q;

  logic         sha_start, sha_valid, sha_ready, sha_last, sha_done, sha_busy;
  logic [31:0]  sha_data, pad_key;
  logic [2:0]   sha_bytes;
  logic [255:0] sha_digest;

  lk_sha256 u_sha256 (
    .clk_i,
    .rst_ni,
    .wipe_i     (wipe_i),
    .start_i    (sha_start),
    .in_valid_i (sha_valid),
    .in_ready_o (sha_ready),
    .in_data_i  (sha_data),
    .in_bytes_i (sha_bytes),
    .in_last_i  (sha_last),
    .busy_o     (sha_busy),
    .done_o     (sha_done),
    .digest_o   (sha_digest)
  );

  assign busy_o    = state_q != HmIdle || sha_busy;
  assign done_o    = done_q;
  assign digest_o  = sha_digest;
  assign key_idx_o = word_q[2:0];
  assign pad_key   = word_q[3] ? '0 : key_word_i;

  always_comb begin
    sha_start  = start_i;
    sha_valid  = 1'b0;
    sha_data   = in_data_i;
    sha_bytes  = 3'd4;
    sha_last   = 1'b0;
    in_ready_o = 1'b0;
    unique case (state_q)
      HmIpad: begin
        sha_valid = 1'b1;
        sha_data  = pad_key ^ 32'h3636_3636;
      end
      HmMsg: begin
        sha_valid  = in_valid_i;
        sha_bytes  = in_bytes_i;
        sha_last   = in_last_i;
        in_ready_o = sha_ready;
        if (sha_done && hmac_q) sha_start = 1'b1;
      end
      HmOpad: begin
        sha_valid = 1'b1;
        sha_data  = pad_key ^ 32'h5c5c_5c5c;
      end
      HmInner: begin
        sha_valid = 1'b1;
        sha_data  = inner_q[32*word_q[2:0] +: 32];
        sha_last  = word_q == 5'd7;
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= HmIdle;
      word_q  <= '0;
      hmac_q  <= 1'b0;
      done_q  <= 1'b0;
      inner_q <= '0;
    end else begin
      done_q <= 1'b0;
      if (wipe_i) begin
        state_q <= HmIdle;
        inner_q <= '0;
      end else if (start_i) begin
        state_q <= hmac_i ? HmIpad : HmMsg;
        hmac_q  <= hmac_i;
        word_q  <= '0;
        inner_q <= '0;
      end else begin
        if (sha_valid && sha_ready) word_q <= word_q + 5'd1;
        unique case (state_q)
          HmIdle: ;
          HmIpad: if (sha_ready && word_q == 5'd15) state_q <= HmMsg;
          HmMsg: begin
            word_q <= '0;
            if (sha_done) begin
              state_q <= hmac_q ? HmOpad : HmIdle;
              done_q  <= !hmac_q;
              if (hmac_q) inner_q <= sha_digest;
            end
          end
          HmOpad: begin
            if (sha_ready && word_q == 5'd15) begin
              state_q <= HmInner;
              word_q  <= '0;
            end
          end
          HmInner: begin
            if (sha_ready && word_q == 5'd7) state_q <= HmOuter;
          end
          HmOuter: begin
            if (sha_done) begin
              state_q <= HmIdle;
              done_q  <= 1'b1;
              inner_q <= '0;
            end
          end
          default: begin
            state_q <= HmIdle;
            inner_q <= '0;
          end
        endcase
      end
    end
  end
endmodule
